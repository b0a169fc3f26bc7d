"""Real tasks while the Execution API is away, slow, or does not take their token any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Start, finished
from fake_server import CUT, CUT_AFTER, JSON, PAGE, Answer, Call, FakeCentral, FakeJob, execution_refusal
from test_airflow import events, execute_task, real

pytestmark = pytest.mark.parametrize("transport", ["channel"])

PATIENT = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1"}

DAG = """
import os, time
from pathlib import Path
from airflow.sdk import Variable, dag, task

def wait_for(name):
    while not Path(os.environ["FOLDER"], name).exists():
        time.sleep(0.05)

@dag(schedule=None)
def edge():
    @task
    def waits():
        print("before")
        wait_for("print")
        for number in range(2000):
            print("line", number, "x" * 200)
        print("printed")
        Path(os.environ["FOLDER"], "printed").touch()
        wait_for("go")
        return Variable.get("colour")
    waits()

edge()
"""


class Site:
    """A daemon with one task that prints when it is told to, and ends when it is told to."""

    def __init__(
        self,
        central: FakeCentral,
        start: Start,
        folder: Path,
        launch: str = "zygote",
        renews: bool = True,
        dag: str = DAG,
        task: str = "waits",
        **env: str,
    ) -> None:
        self.central, self.folder = central, folder
        central.settings["token_renewal"] = renews
        env = {"FOLDER": str(folder), **PATIENT, **env}
        self.daemon = real(central, start, folder, dag=dag, env=env, launch=launch)
        self.job: FakeJob = execute_task(central, task)
        central.wait_for(lambda: "before" in events(self.job), 90)

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def supervisor(self) -> psutil.Process:
        started = next(self.daemon.state_dir.glob("jobs/*/process.json"))
        return psutil.Process(int(started.read_text().split(",")[0].rpartition(":")[2]))

    def sees(self, condition: Callable[[], Any], timeout: float = 60) -> None:
        self.central.wait_for(condition, timeout)


def colour(call: Call) -> Any:
    return Answer(200, {"key": "colour", "value": "red"}, JSON) if "/variables/" in call.path else None


def cut(central: FakeCentral) -> Callable[[Call], Any]:
    """Cut all connections of the Execution API, and return the fault to remove."""

    def fault(call: Call) -> Any:
        return CUT if call.path.startswith("/execution/") else None

    central.faults.insert(0, fault)
    return fault


def heartbeats(central: FakeCentral) -> int:
    return sum(call.path.endswith("/heartbeat") for call in central.calls)


def states(central: FakeCentral) -> list[str]:
    return [call.json["state"] for call in central.executions if call.path.endswith("/state")]


def test_a_task_prints_and_works_on_while_many_heartbeats_fail_and_its_end_is_told_when_that_is_possible(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    central.faults.append(colour)
    site = Site(central, start, tmp_path, AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS="2")
    fault = cut(central)
    before = heartbeats(central)
    site.sees(lambda: heartbeats(central) >= before + 4)
    site.touch("print")
    site.sees((tmp_path / "printed").exists, 20)
    site.sees(lambda: "printed" in events(site.job), 20)
    site.touch("go")
    site.sees(lambda: sum("/variables/" in call.path for call in central.calls) >= 3)
    assert states(central) == []
    central.faults.remove(fault)
    site.sees(finished(site.job))
    assert (states(central), site.job.state) == (["success"], "success")
    assert [event for event in events(site.job) if event.startswith("line")] == [
        f"line {number} {'x' * 200}" for number in range(2000)
    ]


def test_a_task_that_ended_in_an_outage_tells_its_end_after_it_once(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    central.faults.append(colour)
    site = Site(central, start, tmp_path, AIRFLOW__CORE__TASK_SUCCESS_OVERTIME="1")
    site.touch("print")

    def fault(call: Call) -> Any:
        return CUT if call.path.endswith("/state") else None

    central.faults.insert(0, fault)
    site.touch("go")
    site.sees(lambda: sum(call.path.endswith("/state") for call in central.calls) >= 3)
    central.faults.remove(fault)
    site.sees(finished(site.job))
    assert (states(central), site.job.state) == (["success"], "success")


def test_a_page_of_the_network_is_no_answer_to_any_call(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    central.faults.append(colour)
    met: set[str] = set()

    def fault(call: Call) -> Any:
        kind = call.path.rpartition("/")[2]
        if not call.path.startswith("/execution/") or kind in met:
            return None
        met.add(kind)
        return PAGE

    central.faults.insert(0, fault)
    site = Site(central, start, tmp_path, AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS="1")
    site.sees(lambda: any(call.path.endswith("/heartbeat") for call in central.executions))
    site.touch("print")
    site.touch("go")
    site.sees(finished(site.job))
    assert met >= {"run", "heartbeat", "colour", "state"}
    assert (states(central), site.job.state) == (["success"], "success")


def test_an_end_that_airflow_has_but_whose_answer_was_lost_is_told_once_more(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    central.faults.append(colour)
    site = Site(central, start, tmp_path)
    central.faults.insert(0, lambda call: CUT_AFTER if call.path.endswith("/state") and not states(central) else None)
    site.touch("print")
    site.touch("go")
    site.sees(finished(site.job))
    assert (states(central), site.job.state) == (["success", "success"], "success")


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_a_task_whose_token_expired_gets_a_new_one_by_the_daemon(
    central: FakeCentral, start: Start, tmp_path: Path, launch: str
) -> None:
    central.faults.append(colour)
    site = Site(central, start, tmp_path, launch)
    central.task_token = "the-next-token"
    seen = len(central.executions)
    site.sees(lambda: any(call.path.endswith("/heartbeat") for call in central.executions[seen:]))
    site.touch("print")
    site.sees((tmp_path / "printed").exists, 20)
    # Once more, while nothing but the variable and the end is asked for.
    central.task_token = "the-last-token"
    site.touch("go")
    site.sees(finished(site.job))
    assert (states(central), site.job.state) == (["success"], "success")
    left = {path.name for path in site.daemon.state_dir.rglob("token*")}
    assert left == set()
    assert "-token" not in site.daemon.said + "".join(events(site.job))


def test_a_task_that_is_not_to_run_any_more_is_ended_when_its_token_is_asked_for(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    site = Site(central, start, tmp_path)
    supervisor = site.supervisor()
    central.task_token = "the-next-token"
    site.job.withdraw()
    site.sees(lambda: not supervisor.is_running(), 30)
    assert states(central) == []


def test_an_old_server_that_renews_nothing_leaves_airflows_own_behaviour(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    site = Site(central, start, tmp_path, renews=False, AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS="2")
    central.task_token = "the-next-token"
    site.sees(finished(site.job))
    assert site.job.state == "failed"


def test_the_servers_word_ends_the_task(central: FakeCentral, start: Start, tmp_path: Path) -> None:
    site = Site(central, start, tmp_path)
    gone = execution_refusal(410, {"reason": "not_running", "message": "it is not to run"})
    central.faults.insert(0, lambda call: gone if call.path.endswith("/heartbeat") else None)
    site.sees(finished(site.job))
    assert site.job.state == "failed"
    assert any("not to run" in event or "shouldn't be running" in event for event in events(site.job))


def test_an_error_of_one_call_alone_is_given_to_the_task_in_the_end(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    site = Site(central, start, tmp_path, AIRFLOW__WORKERS__EXECUTION_API_RETRIES="2")
    broken = execution_refusal(500, "no key for it")
    central.faults.insert(0, lambda call: broken if "/variables/" in call.path else None)
    site.touch("print")
    site.touch("go")
    site.sees(finished(site.job), 90)
    assert states(central) == ["failed"]


BOTH = """
import os, sys, threading, time
from pathlib import Path
from airflow.sdk import Variable, dag, task

@dag(schedule=None)
def edge():
    @task
    def asks():
        print("before", flush=True)
        while not Path(os.environ["FOLDER"], "ask").exists():
            time.sleep(0.05)
        found = []
        asking = threading.Thread(target=lambda: found.append(Variable.get("colour")))
        asking.start()
        # Until the question is on its way, so that the supervisor hears of it before it hears of the line.
        while "_read_frame" not in names(sys._current_frames().get(asking.ident)):
            time.sleep(0.01)
        print("beside", flush=True)
        Path(os.environ["FOLDER"], "asked").touch()
        asking.join()
        return [*found, Variable.get("colour")]
    asks()

def names(frame):
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back

edge()
"""


def test_a_line_that_is_read_while_a_question_is_repeated_is_not_waited_for_again(
    central: FakeCentral, start: Start, tmp_path: Path
) -> None:
    central.faults.append(colour)
    site = Site(central, start, tmp_path, dag=BOTH, task="asks")
    supervisor = site.supervisor()
    supervisor.suspend()
    try:
        site.touch("ask")
        site.sees((tmp_path / "asked").exists)
        fault = cut(central)
    finally:
        supervisor.resume()
    site.sees(lambda: "beside" in events(site.job))
    site.sees(lambda: sum("/variables/" in call.path for call in central.calls) >= 2)
    central.faults.remove(fault)
    site.sees(finished(site.job))
    assert (states(central), site.job.state) == (["success"], "success")
