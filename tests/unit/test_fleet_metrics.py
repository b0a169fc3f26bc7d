"""What a snapshot of the fleet says to Prometheus, whatever workers say of themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from edge_otel.state import WorkerState
from edge_otel.telemetry import fleet, names
from edge_otel.telemetry.fleet import Jobs, Snapshot, Worker

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IDLE = Worker("w", "idle", None, None, 4, None, None, None, 30.0, NOW, {})


def snapshot(*workers, jobs=(), **used):
    return Snapshot(NOW, workers, jobs, used)


def values(metric, of):
    """Return the samples of one metric by their label values, read from the text."""
    text = fleet.text(fleet.families(of)) + "# EOF\n"
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {tuple(s.labels[label] for label in metric.labels): s.value for s in families[metric.name].samples}


def test_families_are_the_catalogue_in_its_order_also_of_an_empty_fleet():
    assert [metric for metric, _ in [*fleet.families(snapshot()), fleet.age(1.5)]] == list(names.FLEET)
    for metric, samples in fleet.families(snapshot(IDLE, jobs=[Jobs("q", "t", "queued", 1, 1, NOW)])):
        assert {len(labels) for labels, _ in samples} <= {len(metric.labels)}


def test_one_state_is_1_and_the_others_are_0():
    states = values(names.WORKER_STATES, snapshot(IDLE, IDLE._replace(name="v", state="unknown", team="a")))
    assert len(states) == 2 * len(WorkerState)
    assert [who for who, value in states.items() if value == 1] == [("w", "", "idle"), ("v", "a", "unknown")]


def test_workers_are_counted_by_state_and_team_and_a_state_without_any_is_0():
    count = values(names.WORKER_COUNT, snapshot(IDLE, IDLE._replace(name="v"), IDLE._replace(name="x", team="a")))
    assert (count["idle", ""], count["idle", "a"], count["running", "a"]) == (2, 1, 0)
    assert len(count) == 2 * len(WorkerState)


@pytest.mark.parametrize(
    ("state", "connection", "connected"),
    [("idle", "c", 1), ("idle", None, 0), ("unknown", "c", 0), ("offline", "c", 0)],
)
def test_a_worker_counts_as_connected_while_it_is_there_and_has_a_channel(state, connection, connected):
    worker = IDLE._replace(state=state, connection=connection)
    assert values(names.WORKER_CONNECTED, snapshot(worker)) == {("w", ""): connected}


def test_an_administrator_s_number_of_slots_wins():
    workers = [IDLE, IDLE._replace(name="v", slots_wanted=0), IDLE._replace(name="x", slots=None)]
    assert values(names.WORKER_SLOTS, snapshot(*workers)) == {("w", ""): 4, ("v", ""): 0, ("x", ""): 0}
    assert values(names.WORKER_SLOTS_USED, snapshot(*workers, w=3)) == {("w", ""): 3, ("v", ""): 0, ("x", ""): 0}


def test_only_a_worker_in_maintenance_says_by_whom():
    parked = IDLE._replace(name="v", state="maintenance mode", maintenance_origin="automatic")
    assert values(names.WORKER_MAINTENANCE, snapshot(IDLE, parked)) == {("v", "", "automatic"): 1}


def test_a_queue_counts_those_that_name_it_and_those_of_its_team_that_take_every_queue():
    workers = [
        IDLE._replace(name="every"),
        IDLE._replace(name="twice", queues=["a", "a"], slots=2),
        IDLE._replace(name="away", queues=["a"], state="offline"),
        IDLE._replace(name="other", team="t", slots=16),
        IDLE._replace(name="parked", queues=["b"], state="maintenance mode"),
        IDLE._replace(name="silent", queues=["a"], last_heartbeat=NOW - timedelta(seconds=5 * 30)),
    ]
    jobs = [Jobs("a", None, "queued", 7, 9, NOW - timedelta(seconds=90)), Jobs("c", "t", "success", 1, 1, NOW)]
    of = snapshot(*workers, jobs=jobs)
    assert values(names.QUEUE_WORKERS, of) == {("a", ""): 2, ("b", ""): 1, ("c", "t"): 1}
    assert values(names.QUEUE_SLOTS, of) == {("a", ""): 6, ("b", ""): 4, ("c", "t"): 16}
    assert values(names.QUEUE_OLDEST, of) == {("a", ""): 90, ("b", ""): 0, ("c", "t"): 0}


def test_a_queue_without_anybody_is_there_and_0():
    of = snapshot(jobs=[Jobs("a", None, "queued", 1, 1, NOW)])
    assert values(names.QUEUE_WORKERS, of) == {("a", ""): 0}
    assert values(names.JOBS, of)["a", "", "running"] == 0


def test_slots_in_use_are_those_of_assigned_and_running_jobs():
    counts = {"queued": 1, "assigned": 2, "running": 4, "success": 8, "failed": 16, "lost": 32}
    of = snapshot(jobs=[Jobs("a", None, state, number, number, NOW) for state, number in counts.items()])
    assert values(names.QUEUE_SLOTS_USED, of) == {("a", ""): 6}
    assert values(names.JOBS, of) == {("a", "", state): number for state, number in counts.items()}


@pytest.mark.parametrize(
    ("fact", "metric", "value"),
    [
        ({"cpu_percent": 12.5}, names.WORKER_CPU, 0.125),
        ({"memory_percent": 100}, names.WORKER_MEMORY, 1.0),
        ({"clock_skew": -3.5}, names.WORKER_CLOCK_SKEW, -3.5),
        ({"log_backlog": 2**62}, names.WORKER_LOG_BACKLOG, 2.0**62),
        ({"cpu_percent": 100.5}, names.WORKER_CPU, None),
        ({"cpu_percent": -1}, names.WORKER_CPU, None),
        ({"cpu_percent": "12"}, names.WORKER_CPU, None),
        ({"cpu_percent": True}, names.WORKER_CPU, None),
        ({"cpu_percent": None}, names.WORKER_CPU, None),
        ({"cpu_percent": [1]}, names.WORKER_CPU, None),
        ({"load1": float("nan")}, names.WORKER_LOAD, None),
        ({"load1": float("inf")}, names.WORKER_LOAD, None),
        ({"load1": -1.0}, names.WORKER_LOAD, None),
        ({"outbox_size": 10**400}, names.WORKER_OUTBOX, None),
    ],
)
def test_a_number_of_a_worker_s_is_taken_where_it_can_be_one(fact, metric, value):
    expected = {} if value is None else {("w",): value}
    assert values(metric, snapshot(IDLE._replace(sysinfo=fact))) == expected


def test_other_numbers_are_the_user_s_facts():
    said = {"temperature": 31, "status": 20, "load5": 1.0, "concurrency": 4, "text": "1", "flag": True}
    assert values(names.WORKER_FACT, snapshot(IDLE._replace(sysinfo=said))) == {("w", "temperature"): 31}


def test_odd_texts_break_nothing_and_are_cut():
    odd = 'a"b\\c\nd\r\u2028\x00\ud800' + "x" * 1000
    said = {"airflow_version": odd, "os": 7, odd: 1.0, odd + "more": 2.0}
    of = snapshot(IDLE._replace(sysinfo=said), jobs=[Jobs('q"\\\n', None, "queued", 1, 1, NOW)])
    cut = odd[: fleet.MAX_TEXT].replace("\ud800", "?")
    assert values(names.WORKER_INFO, of) == {("w", "", cut, "", "7"): 1}
    assert values(names.WORKER_FACT, of) == {("w", cut): 2.0}
    assert ('q"\\\n', "") in values(names.QUEUE_OLDEST, of)
    assert fleet.text(fleet.families(of)).encode()
