"""One short task: what is measured is how long it waits for its process."""

from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def bench_single():
    @task
    def single():
        return 1

    single()


bench_single()
