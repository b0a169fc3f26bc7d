"""Dashboards and rules against a real Prometheus that scrapes a real site with workers in different states."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import requests
import yaml
from tools import missing

from acceptance.exposition import Exposition
from acceptance.queries import Query, of_dashboards, of_rules
from acceptance.rig import LONG, Rig
from dashboards import prometheus, rules
from demo.edge import EdgeWorker
from demo.prometheus import Prometheus, why_prometheus_cannot_run
from demo.wait import NotSeen
from edge_otel.telemetry import names
from edge_otel.wire import WORKER_HEADER

AWAY = "the API server is away"
BACK = "the API server was away"
FAULTS = {
    "Prometheus cannot read the Edge API": AWAY,
    "absent(": AWAY,
    prometheus.name(names.RECONNECTS): BACK,
    'edge_result="failed"': BACK,
    "cannot read the fleet": "the database is away",
    "of the jobs of queue $1 fail": "most jobs of a queue fail",
    prometheus.name(names.JOBS_REQUEUED): "a worker leaves between an offer and its answer",
    prometheus.name(names.JOBS_STALE): "a worker reports a job that is another one's",
    prometheus.name(names.OUTBOX_DROPPED): "a site has more telemetry than it can keep",
    'status=~"5..",route': "the API fails",
    'status=~"5.."}': "the API fails",
}
"""What may have no data without a fault, by a part of the query. The first two faults are brought about here."""


@pytest.fixture
def server(rig: Rig, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that has the rules, with patience of a hundredth, and scrapes site and workers each second."""
    reason = why_prometheus_cannot_run()
    if reason is not None:
        missing(reason)
    soon = tmp_path / "soon.rules.yaml"
    soon.write_text(rules.text(0.01))
    with ExitStack() as owned:
        exposition = Exposition(rig.spans)
        owned.callback(exposition.stop)
        made = Prometheus(
            tmp_path,
            tmp_path,
            edge=f"127.0.0.1:{rig.cluster.port}",
            alertmanager="127.0.0.1:9",
            others={"otlp": exposition.address},
            rules=soon,
            interval="1s",
        )
        owned.callback(made.stop)
        yield made


def bring_about(rig: Rig, folder: Path) -> tuple[str, str]:
    """Have one worker in each state, and jobs that ended well and badly, run and wait.

    Return the two runs that are not finished.
    """
    (folder / "site_facts.py").write_text("def read():\n    return {'belt': 1}\n")
    workers = {name: rig.new_worker(name) for name in ("first", "second", "parked", "stopped", "dead")}
    workers["first"].start("--facts-function", "site_facts:read", env={"PYTHONPATH": str(folder)})
    for name in ("second", "parked", "stopped", "dead"):
        workers[name].start()
    for name in workers:
        rig.wait_worker(name, "idle")
    assert rig.finish("everything", rig.trigger("everything"), LONG) == "failed"
    assert rig.local(workers["parked"], "maintenance", "on", "--comment", "new disks").returncode == 0
    rig.wait_worker("parked", "maintenance mode")
    rig.cluster.end("stopped")
    rig.kill_site(workers["dead"])
    held, waiting = rig.trigger("gated", count=1), rig.trigger("elsewhere")
    rig.wait_started(held, 1)
    rig.wait(lambda: rig.jobs(waiting), "the job that nobody takes to be queued")
    junk = partial(requests.post, f"{rig.cluster.edge_url}/v2/otlp/v1/traces", data=b"no telemetry", timeout=30)
    assert junk().status_code == 403
    authorization = {
        "Authorization": f"Bearer {(workers['first'].folder / 'token').read_text()}",
        WORKER_HEADER: "first",
    }
    assert junk(headers={**authorization, "Content-Type": "application/x-protobuf"}).status_code == 400
    rig.wait_worker("stopped", "offline")
    rig.wait_worker("dead", "unknown")
    return held, waiting


def test_every_query_of_every_panel_and_rule_returns_data(rig: Rig, server: Prometheus, tmp_path: Path) -> None:
    asked = list(dict.fromkeys([*of_dashboards(), *of_rules()]))
    held, waiting = bring_about(rig, tmp_path)
    found: dict[Query, int] = {}

    def empty(*without: str) -> list[Query]:
        found.update({query: len(server.query(query.expr)) for query in asked if not found.get(query)})
        return [query for query in asked if not found[query] and fault(query) not in without]

    def wait_for_all(*without: str) -> None:
        with suppress(NotSeen):
            rig.wait(lambda: not empty(*without), "every query to return data", 30)

    wait_for_all(*FAULTS.values())
    assert traces_of(server, names.JOB_RUN_SECONDS) & {span.trace_id for span in rig.spans.spans()}
    rig.release(held)
    assert rig.finish("gated", held) == "success"
    # Back in order, so that nobody else's alerts are about it.
    with rig.running("dead", queues="other"):
        assert rig.finish("elsewhere", waiting) == "success"
    rig.cluster.end("api-server")
    wait_for_all(*(why for why in FAULTS.values() if why != AWAY))
    rig.cluster.start_api_server()
    rig.cluster.wait_for_api()
    here = {why for why in FAULTS.values() if why not in (AWAY, BACK)}
    wait_for_all(*here)
    for query in asked:
        print(
            f"{query.file:<20} {query.panel:<30} {found[query]:>3}  {fault(query):<25} {' '.join(query.expr.split())}"
        )
    assert empty(*here) == []
    assert len({query.file for query in asked}) == 5, "four dashboards and one file of rules"


def test_the_example_of_a_new_site_leaves_a_token_with_which_a_worker_registers(rig: Rig, tmp_path: Path) -> None:
    compose = yaml.safe_load((Path(rules.__file__).parents[1] / "compose.observability.yaml").read_text())
    *shell, script = compose["services"]["worker-token"]["command"]
    text = script.replace("$$", "$").replace("/run/edge-token", str(tmp_path))
    command = [*shell, text.replace("airflow edge", f"{sys.executable} -m airflow edge")]
    subprocess.run(command, env=rig.cluster.env, check=True, timeout=60)
    token = (tmp_path / "token").read_text()
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0
    subprocess.run(command, env=rig.cluster.env, check=True, timeout=60)
    assert (tmp_path / "token").read_text() == token, "a second start keeps it"
    worker = EdgeWorker(rig.cluster, "site-1", token=token)
    worker.start()
    rig.wait_worker("site-1", "idle")


def traces_of(server: Prometheus, metric: names.Metric) -> set[str]:
    """Return the traces to which the exemplars of a histogram lead, under the label that Grafana is told."""
    asked = {"query": f"{metric.name}_bucket", "start": time.time() - 600, "end": time.time()}
    answer = requests.get(f"{server.url}/api/v1/query_exemplars", params=asked, timeout=30).json()
    return {exemplar["labels"]["trace_id"] for series in answer["data"] for exemplar in series["exemplars"]}


def fault(query: Query) -> str:
    """Return the fault without which the query has no data; empty when there must be some."""
    return next((why for part, why in FAULTS.items() if part in query.expr), "")
