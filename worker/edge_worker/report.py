"""The daemon's status as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

_LEVELS = {20: "good", 30: "warning", 40: "error"}


def lines(status: dict[str, Any], now: float) -> Iterator[str]:
    """Yield the lines of a report; ``now`` is in seconds since the epoch."""
    versions = status["versions"]
    yield f"{status['name']}: {status['state']}"
    yield from _judged("live", status["live"])
    yield from _judged("ready", status["ready"])
    yield _line("server", f"{status['server']}, {_contact(status, now)}")
    if policy := status.get("disconnect_policy"):
        yield _line("when cut off", policy)
    yield _line("health", f"{_LEVELS[status['health']['level']]}{_more(status['health']['reason'])}")
    if (maintenance := status["maintenance"]) is not None:
        since = f" for {_span(now - maintenance['since'])}" if maintenance["since"] else ""
        yield _line("maintenance", f"{maintenance['origin']}{since}{_more(maintenance['comment'])}")
    if status["leaving"]:
        yield _line("leaving", status["leaving"])
    if status["clock_skew"] is not None:
        ahead = "ahead of" if status["clock_skew"] > 0 else "behind"
        yield _line("clock", f"{abs(status['clock_skew']):.1f} s {ahead} the server's")
    queues = ", ".join(status["queues"]) if status["queues"] is not None else "all that the token allows"
    yield _line("queues", queues)
    yield _line("slots", f"{status['free']} of {status['concurrency']} free")
    outbox = status["outbox"]
    yield _line("unsent", f"{_size(status['log_backlog'])} of task logs, {_size(outbox['size'])} of telemetry")
    for signal, error in outbox["errors"].items():
        yield _line("", f"{signal}: {error}")
    for what, count in outbox["dropped"].items():
        yield _line("", f"dropped: {count} {what}")
    yield _line("daemon", f"edge-worker {status['version']}, pid {status['pid']}, session {status['session']}")
    yield _line("", f"up for {_span(now - status['started'])}")
    yield _line("tasks", f"Airflow {versions['airflow_version']}, Python {versions['python_version']}")
    yield f"loops ({len(status['loops'])})"
    for name, loop in status["loops"].items():
        yield f"  {name:<18} {loop['doing']} for {_span(loop['age'])}"
    yield f"jobs ({len(status['jobs'])})"
    for job in status["jobs"]:
        yield f"  {job['dag_id']} {job['task_id']} {job['run_id']}{_place(job)}"
        yield f"    {_course(job, now)}, {_size(job['log_backlog'])} of log unsent, job {job['id']}"


def _line(title: str, text: str) -> str:
    return f"  {title:<12} {text}"


def _judged(title: str, judged: dict[str, Any]) -> Iterator[str]:
    yield _line(title, "yes" if judged["ok"] else f"no: {'; '.join(judged['reasons'])}")


def _contact(status: dict[str, Any], now: float) -> str:
    age = "no answer yet" if status["contact_age"] is None else f"last answer {_span(status['contact_age'])} ago"
    if status["transport"] is None:
        return f"not connected, {age}"
    return f"by {status['transport']} for {_span(now - status['transport_since'])}, {age}"


def _course(job: dict[str, Any], now: float) -> str:
    if job["since"] is None:
        return "offered"
    pid = f", pid {job['pid']}" if job["pid"] else ""
    return f"{'running' if job['running'] else 'ended, to be reported'}{pid}, accepted {_span(now - job['since'])} ago"


def _place(job: dict[str, Any]) -> str:
    mapped = f" [{job['map_index']}]" if job["map_index"] >= 0 else ""
    return f"{mapped} try {job['try_number']}"


def _more(text: str) -> str:
    return f": {text}" if text else ""


def _span(seconds: float) -> str:
    return f"{max(0.0, seconds):.1f} s" if seconds < 60 else str(timedelta(seconds=int(seconds)))


def _size(count: float) -> str:
    unit = 0
    while count >= 1024 and unit + 1 < len(_UNITS):
        count, unit = count / 1024, unit + 1
    return f"{count:.{min(unit, 1)}f} {_UNITS[unit]}"
