"""Runs Edge API servers as processes: this one imports everything once and forks a server for each line that it reads.

A line is a JSON object: ``port``, ``log`` (a file), ``env`` (environment variables), ``dies`` (a name of DEATHS, or
null) and ``slow`` (whether all that it asks of the database takes a while). The answer is a line with the server's
process id. All servers are killed when the input ends. With ``reads``, the id of a task instance, there is no server
but somebody who reads its log (see ``log_reading``).
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
import uvicorn.loops.auto
import uvicorn.protocols.http.auto
import uvicorn.protocols.websockets.auto
from airflow_database import use
from log_reading import show
from sqlalchemy.orm import configure_mappers

from edge_otel.api import assigner, log_files, log_upload, pulse, recorder, v2_logs
from edge_otel.api.app import create_configured_app
from edge_otel.api.hub import Hub
from edge_otel.models import logs
from edge_otel.state import FINISHED, JobState

with suppress(ImportError):
    # Where it is installed, what servers upload logs with: each would take a second to load it.
    import airflow.providers.amazon.aws.log.s3_task_handler  # noqa: F401

Work = Callable[..., Any]


def die() -> None:
    """End this process here and now."""
    os.kill(os.getpid(), signal.SIGKILL)


def _accepts(reports: list[Any]) -> bool:
    return any(report.state is JobState.RUNNING for report in reports)


def _ends(reports: list[Any]) -> bool:
    return any(report.state in FINISHED for report in reports)


def _after_claim(claim: Work) -> Work:
    def work(*args: Any) -> Any:
        batch, now = claim(*args)
        if batch.claimed:
            die()
        return batch, now

    return work


def _around_reports(fatal: Callable[[list[Any]], bool], *, committed: bool) -> Callable[[Work], Work]:
    def wrap(write: Work) -> Work:
        def work(reports: list[Any]) -> Any:
            if not committed and fatal(reports):
                die()
            verdicts = write(reports)
            if fatal(reports):
                die()
            return verdicts

        return work

    return wrap


def _after_append(append: Work) -> Work:
    """Not the first one: a part of the log is stored."""

    def work(session: Any, job: Any, claim: int, offset: int, *args: Any) -> Any:
        appended = append(session, job, claim, offset, *args)
        if offset > 0:
            die()
        return appended

    return work


def _after_append_committed(append: Work) -> Work:
    def work(job_id: str, claim: int, first: int, *args: Any) -> Any:
        answer = append(job_id, claim, first, *args)
        if first > 0:
            die()
        return answer

    return work


def _before_lines(record: Work) -> Work:
    def work(beats: dict[str, Any]) -> Any:
        if any(beat.lines for beat in beats.values()):
            die()
        return record(beats)

    return work


def _before(_: Work) -> Work:
    def work(*args: Any) -> Any:
        die()

    return work


DEATHS: dict[str, tuple[Any, str, Callable[[Work], Work]]] = {
    "after the claim, before the offer": (assigner, "_claim", _after_claim),
    "after accept, before its commit": (recorder, "_write", _around_reports(_accepts, committed=False)),
    "after accept's commit, before confirmed": (recorder, "_write", _around_reports(_accepts, committed=True)),
    "after the end, before its commit": (recorder, "_write", _around_reports(_ends, committed=False)),
    "after the end's commit, before state_ack": (recorder, "_write", _around_reports(_ends, committed=True)),
    "after heartbeat_ack, before the lines of a log are stored": (pulse, "_record", _before_lines),
    "in an append, before its commit": (logs, "append", _after_append),
    "after an append's commit, before its answer": (v2_logs, "_append", _after_append_committed),
    "after a log's file was written, before that is stored": (log_files, "tell", _before),
    "after a log's upload, before that is noted": (log_upload, "_note", _before),
}
"""By the step at which a server kills itself: what is wrapped, and in what."""


PAUSES = (0.0, 0.0, 0.02, 0.1)
"""Seconds before and after what a slow server asks of the database."""


def slow_down() -> None:
    """Let much happen between a decision, its transaction, and what is done about it."""

    def slowed(work: Work) -> Work:
        def slow(*args: Any) -> Any:
            time.sleep(random.choice(PAUSES))
            try:
                return work(*args)
            finally:
                time.sleep(random.choice(PAUSES))

        return slow

    for module, name in ((assigner, "_claim"), (recorder, "_write"), (pulse, "_record"), (pulse, "_look")):
        setattr(module, name, slowed(getattr(module, name)))
    handshake = Hub._handshake
    Hub._handshake = lambda hub, work: handshake(hub, slowed(work))


HANDSHAKES_AT_A_TIME = "handshakes at a time: "
"""Before a number in a server's log, whenever there were more than before."""


def count_handshakes() -> None:
    """Log how many handshakes are under way in the database, where there have never been so many."""
    handshake = Hub._handshake
    now, most, lock = 0, 0, threading.Lock()

    def counted(work: Work) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            if now > most:
                most = now
                print(f"{HANDSHAKES_AT_A_TIME}{most} ", flush=True)
        try:
            return work()
        finally:
            with lock:
                now -= 1

    def watched(hub: Hub, work: Work) -> Any:
        return handshake(hub, lambda: counted(work))

    Hub._handshake = watched


def serve(order: dict[str, Any]) -> None:
    """Serve as configured until told to stop."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", force=True)
    os.environ.update(order["env"])
    use(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    if order["reads"] is not None:
        show(order["reads"])
        return
    if order["dies"] is not None:
        module, name, wrap = DEATHS[order["dies"]]
        setattr(module, name, wrap(getattr(module, name)))
    if order["slow"]:
        slow_down()
    count_handshakes()
    # More often than in production.
    log_upload.INTERVAL, log_upload.AWAY = 0.05, 0.2
    uvicorn.run(create_configured_app(), host="127.0.0.1", port=order["port"], log_config=None)


def main() -> None:
    """Fork until the input ends."""
    # Airflow loads all of its models here, and not in every server again.
    configure_mappers()
    uvicorn.loops.auto.auto_loop_factory()
    # Nobody waits for the servers: without this, those that have ended would stay as zombies.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    started: list[int] = []
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                serve(json.loads(line))
                code = 0
            finally:
                os._exit(code)
        started.append(pid)
        print(pid, flush=True)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
