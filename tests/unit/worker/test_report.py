"""A status as people and as Prometheus read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edge_worker import local
from edge_worker.exposition import exposition
from edge_worker.faults import BadSetting
from edge_worker.report import lines
from prometheus_client.parser import text_string_to_metric_families

NOW = 1_000_000.0


@pytest.fixture
def status() -> dict[str, Any]:
    return {
        "name": "site-1",
        "version": "1.0",
        "versions": {"airflow_version": '3.3.2 "a\\b"', "python_version": "3.11"},
        "pid": 7,
        "session": "s",
        "started": NOW - 90_061,
        "server": "https://central.example/edge_worker",
        "state": "maintenance pending",
        "live": {"ok": False, "reasons": ["heartbeat: sending for 400 s, which takes 300 s at most"]},
        "ready": {"ok": False, "reasons": ["not registered with the server", "in maintenance: belt"]},
        "registered": False,
        "transport": None,
        "transport_since": NOW - 10,
        "last_contact": None,
        "contact_age": None,
        "clock_skew": -61.25,
        "draining": True,
        "leaving": "SIGTERM was received",
        "maintenance": {"comment": "belt", "origin": "local", "since": NOW - 30},
        "health": {"level": 40, "reason": "Disk of /var at 99 %"},
        "queues": None,
        "concurrency": 4,
        "free": 0,
        "jobs": [
            {
                "id": "j1",
                "claim": 1,
                "dag_id": "d",
                "task_id": "t",
                "run_id": "r",
                "map_index": 3,
                "try_number": 2,
                "queue": "q",
                "slots": 1,
                "running": True,
                "since": NOW - 3600,
                "pid": 99,
                "log_backlog": 2048,
            }
        ],
        "log_backlog": 2048,
        "outbox": {"size": 5 * 1024 * 1024, "dropped": {"traces spool_full": 3}, "errors": {"logs": "refused"}},
        "loops": {"heartbeat": {"doing": "sending", "age": 400.0, "within": 300.0}},
    }


def test_report_says_what_is_wrong_and_for_how_long(status: dict[str, Any]) -> None:
    text = "\n".join(lines(status, NOW))
    for words in (
        "site-1: maintenance pending",
        "no: heartbeat: sending for 400 s",
        "no: not registered with the server; in maintenance: belt",
        "not connected, no answer yet",
        "error: Disk of /var at 99 %",
        "local for 30.0 s: belt",
        "SIGTERM was received",
        "61.2 s behind the server's",
        "all that the token allows",
        "2.0 KiB of task logs, 5.0 MiB of telemetry",
        "logs: refused",
        "dropped: 3 traces spool_full",
        "up for 1 day, 1:01:01",
        "sending for 0:06:40",
        "d t r [3] try 2",
        "running, pid 99, accepted 1:00:00 ago, 2.0 KiB of log unsent, job j1",
    ):
        assert words in text


def test_exposition_escapes_and_leaves_out_what_is_not_known(status: dict[str, Any]) -> None:
    found = {family.name: family.samples for family in text_string_to_metric_families(exposition(status))}
    assert found["edge_daemon_info"][0].labels["airflow_version"] == '3.3.2 "a\\b"'
    assert "edge_daemon_contact_age_seconds" not in found
    assert found["edge_daemon_clock_ahead_seconds"][0].value == -61.25
    assert found["edge_daemon_live"][0].value == 0
    (dropped,) = found["edge_daemon_dropped_telemetry"]
    assert (dropped.labels, dropped.value) == ({"signal": "traces", "reason": "spool_full"}, 3)
    assert [(s.labels["loop"], s.value) for s in found["edge_daemon_loop_age_seconds"]] == [("heartbeat", 400)]


@pytest.mark.parametrize("given", [{"check": None, "output": "text"}, {"check": "ready", "output": "text"}], ids=str)
def test_status_of_an_older_daemon_is_told_to_be_that(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "ask", lambda *_: {"name": "site-1", "state": "idle", "jobs": []})
    with pytest.raises(BadSetting, match="of another version"):
        local.perform("status", {"state_dir": Path("/s"), "config": None, **given})
