"""The DAGs of the acceptance tests."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import ledger
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, DeadlineAlert, DeadlineReference, SyncCallback, dag, get_current_context, task

SHORT = timedelta(seconds=1)
LINES = 300


@dag(schedule=None, catchup=False)
def everything():
    """Mapped tasks, one that needs a second try, one that fails for good, one that is never reached."""

    @task
    def numbers() -> list[int]:
        ledger.note("start")
        return [1, 2, 3]

    @task
    def double(number: int) -> int:
        ledger.note("start")
        return number * 2

    @task
    def total(doubled: list[int]) -> None:
        ledger.note("start")
        if sorted(doubled) != [2, 4, 6]:
            raise ValueError(f"The mapped tasks returned {doubled}.")

    @task(retries=1, retry_delay=SHORT)
    def second_try() -> None:
        ledger.note("start")
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("This try fails on purpose.")

    @task
    def failing() -> None:
        ledger.note("start")
        raise RuntimeError("This task fails on purpose.")

    @task
    def unreached() -> None:
        ledger.note("start")

    @task
    def talkative() -> None:
        ledger.note("start")
        for number in range(LINES):
            print(f"line {number}")

    total(double.expand(number=numbers()))
    second_try()
    talkative()
    failing() >> unreached()


@dag(schedule=None, catchup=False)
def gated():
    """As many tasks as the run's ``count``, each of which works until the test releases it."""

    @task
    def indexes() -> list[int]:
        return list(range(get_current_context()["dag_run"].conf["count"]))

    @task(retries=1, retry_delay=SHORT)
    def hold(index: int) -> None:
        ledger.note("start")
        print(f"task {index} works")
        ledger.wait_for_release(index)
        print(f"task {index} was released")
        ledger.note("end")

    hold.expand(index=indexes())


@dag(schedule=None, catchup=False)
def elsewhere():
    """One task of the queue ``other``."""

    @task(queue="other")
    def far() -> None:
        ledger.note("start")

    far()


@dag(schedule=None, catchup=False)
def watched():
    """A success, mapped tasks, a failure, a retry, a task that is killed, and one whose supervisor is."""

    @task
    def fine() -> None:
        print("fine")

    @task
    def each(index: int) -> None:
        print(index)

    @task
    def failing() -> None:
        raise RuntimeError("This task fails on purpose.")

    @task(retries=1, retry_delay=SHORT)
    def second_try() -> None:
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("This try fails on purpose.")

    @task
    def killed() -> None:
        print("about to be killed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def unsupervised() -> None:
        print("about to lose its supervisor", flush=True)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    fine()
    each.expand(index=[0, 1])
    failing()
    second_try()
    killed()
    unsupervised()


@dag(schedule=None, catchup=False)
def bursting():
    """Twenty tasks whose processes are all killed: one that merely fails is a job well done."""

    @task
    def killed(number: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    killed.expand(number=list(range(20)))


class Deferring(BaseOperator):
    """Works in two parts, and lets a trigger wait in between."""

    def execute(self, context: object) -> None:
        ledger.note("start")
        print("the first part")
        self.defer(trigger=TimeDeltaTrigger(SHORT), method_name="go_on")

    def go_on(self, context: object, event: object = None) -> None:
        print("the second part")
        ledger.note("end")


@dag(schedule=None, catchup=False)
def deferring():
    """One task that is deferred and resumes, on whichever worker is free."""
    Deferring(task_id="two_parts")


@dag(
    schedule=None,
    catchup=False,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=SHORT,
        callback=SyncCallback("ledger.note_missed_deadline", kwargs={"whose": "late"}),
    ),
)
def late():
    """A run that misses its deadline of a second, because its task waits for the test."""

    @task
    def hold() -> None:
        ledger.note("start")
        ledger.wait_for_release(0)

    hold()


everything()
gated()
elsewhere()
deferring()
late()
watched()
bursting()
