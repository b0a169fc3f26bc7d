"""Short mapped tasks: what is measured is everything around them."""

from airflow.sdk import Param, dag, task


@dag(schedule=None, catchup=False, params={"n": Param(64, type="integer")}, max_active_tasks=1000)
def bench_mapped():
    @task
    def numbers(**context):
        return list(range(context["params"]["n"]))

    @task
    def short(number):
        return number

    short.expand(number=numbers())


bench_mapped()
