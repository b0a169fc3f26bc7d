"""``GET /metrics``: what it says of real traffic, on both transports."""

from __future__ import annotations

import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
from channels import close_code, now, queue, state, wait_for
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from rows import register
from scrapes import samples, scrape, value
from served import FACTS, Api, coordinates, new_token, registration, wish
from tools import missing

from edge_otel.api import metrics
from edge_otel.messages import CLOSED, Accept, Decline
from edge_otel.state import JobState, WorkerState
from edge_otel.telemetry import names

on_sqlite_alone = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SERVED = {metric.name: metric for metric in (*names.FLEET, *names.PROCESS_METRICS)}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CARRIER = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Let every scrape read the database, unless the test says otherwise."""
    monkeypatch.setattr(metrics, "KEPT", 0.0)


@pytest.fixture
def collector():
    """The URL of one that takes everything."""

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Takes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def channel_api(collector, start_api, monkeypatch) -> Api:
    """The Edge API with its hub, and a collector behind its gateway."""
    monkeypatch.setattr("edge_otel.api.pulse.LOOK_INTERVAL", 0.5)
    return start_api(channels=True, otlp_endpoint=collector)


@pytest.fixture
def api(channel_api) -> Api:
    return channel_api


@pytest.fixture
def q() -> str:
    """A queue that no other test has counted for."""
    return f"q-{uuid4()}"


def over_a_channel(api, database, connect, q):
    """Let one worker decline a job, run it, say so again under an old claim, beat and leave."""
    job_id = queue(database, queue=q, carrier=CARRIER)
    facts = {**FACTS, "cpu_percent": 50.0, "temperature": 31.5}
    token = new_token("over-channel")
    far = connect(to=api, state="idle", token=token, name="over-channel", queues=[q], sysinfo=facts)
    far.facts = facts
    declined = far.hear("job")
    far.say(Decline(id=declined.task_instance_id, claim=declined.claim, reason="no room"))
    far.beat()
    offer = far.hear("job")
    assert far.accept(offer).type == "confirmed"
    assert far.end(offer, log_length=0).type == "state_ack"
    far.say(Accept(id=offer.task_instance_id, claim=declined.claim))
    assert far.hear("stale").id == offer.task_instance_id
    far.say('{"type": "from the future"}')
    far.say("{")
    assert far.hear("error")
    far.beat()
    far.close()
    wait_for(lambda: not api.app.state.hub.links, "the channel to end")
    assert state(database, job_id) is JobState.SUCCESS


def over_v1(api, database, q):
    """Let one worker fetch a job, forget it, fetch it again, log, now and then wrongly, and fail it."""
    queue(database, queue=q, carrier=CARRIER)
    token = new_token("over-v1")
    assert api.call("POST", "/v1/worker/over-v1", token, json=registration(queues=[q])).ok
    assert api.call("PATCH", "/v1/worker/over-v1", token, json=registration("idle", queues=[q])).ok
    assert api.call("POST", "/v1/jobs/fetch/over-v1", token, json=wish(queues=[q])).json()["claim"] == 1
    assert api.call("POST", "/v1/worker/over-v1", token, json=registration(queues=[q], jobs=[])).ok
    job = api.call("POST", "/v1/jobs/fetch/over-v1", token, json=wish(queues=[q])).json()
    path = f"/v1/jobs/state/{coordinates(job)}"
    report = {"task_instance_id": job["task_instance_id"], "claim": job["claim"]}
    assert api.call("PATCH", f"{path}/running", token, json=report).ok
    log = f"/v2/jobs/{job['task_instance_id']}/log"
    for first, status in ((0, 202), (2, 202), (9, 416)):
        headers = {"X-Claim": str(job["claim"]), "Content-Range": f"bytes {first}-{first + 4}/*"}
        assert api.call("PATCH", log, token, data=b"12345", headers=headers).status_code == status
    assert api.call("PATCH", f"{path}/failed", token, json=report).ok
    assert api.call("PATCH", f"{path}/failed", token, json=report).ok, "said again, and counted once"
    stale = {**report, "claim": 0}
    assert api.call("PATCH", f"{path}/running", token, json=stale).status_code == 409


def over_the_gateway(api):
    """Send telemetry that is passed on, and some that is not."""
    token = new_token("over-v1")
    headers = {"Content-Type": "application/x-protobuf"}
    # One ResourceSpans with nothing in it.
    assert api.call("POST", "/v2/otlp/v1/traces", token, data=b"\x0a\x00", headers=headers).status_code == 200
    assert api.call("POST", "/v2/otlp/v1/traces", token, data=b"\xff", headers=headers).status_code == 400


@pytest.fixture
def traffic(api, database, connect, q):
    """Everything that is counted has happened at least once, and a worker is in maintenance."""
    with database() as session:
        register(session, "parked", now(), state=WorkerState.MAINTENANCE_MODE, maintenance_comments="disk")
    over_a_channel(api, database, connect, q)
    over_v1(api, database, q)
    over_the_gateway(api)


@on_sqlite_alone
def test_what_is_exposed_is_the_catalogue_both_ways(api, traffic):
    facts = {"cpu_percent": 1, "memory_percent": 2, "disk_percent": 3, "load1": 4, "clock_skew": 0.5, "spins": 1}
    facts |= {"log_backlog": 1, "outbox_size": 2, "outbox_dropped": 3, **registration()["sysinfo"]}
    token = new_token("over-v1")
    assert api.call("PATCH", "/v1/worker/over-v1", token, json=registration("idle", sysinfo=facts)).ok
    exposition = scrape(api)
    families = {}
    for family in text_string_to_metric_families(exposition):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name not in families, name
        families[name] = family
    assert families.keys() == SERVED.keys()
    for name, family in families.items():
        metric = SERVED[name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert family.samples, name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(metric.labels), name
        bounds = {float(s.labels["le"]) for s in family.samples if "le" in s.labels}
        assert sorted(bounds)[:-1] == list(metric.buckets)
    samples(exposition)


@on_sqlite_alone
def test_promtool_finds_nothing_wrong(api, traffic):
    if shutil.which("promtool") is None:
        missing("promtool is not installed: apt-get install prometheus")
    command = ["promtool", "check", "metrics"]
    checked = subprocess.run(command, input=scrape(api), capture_output=True, text=True, timeout=20, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_what_happened_is_counted_on_both_transports(api, traffic, q):
    said = scrape(api)
    assert value(said, names.JOBS_ASSIGNED, queue=q) == 4
    assert value(said, names.JOB_QUEUE_SECONDS, "_count", queue=q) == 4
    assert value(said, names.JOBS_REQUEUED, queue=q, reason="declined") == 1
    assert value(said, names.JOBS_REQUEUED, queue=q, reason="registered") == 1
    assert value(said, names.JOBS_FINISHED, queue=q, outcome="success") == 1
    assert value(said, names.JOBS_FINISHED, queue=q, outcome="failed") == 1
    assert value(said, names.JOB_RUN_SECONDS, "_count", queue=q, outcome="success") == 1
    assert value(said, names.JOB_RUN_SECONDS, "_count", queue=q, outcome="failed") == 1
    assert value(said, names.JOBS_STALE, queue=q) == 2
    assert value(said, names.JOBS, queue=q, team="", state="success") == 1
    assert value(said, names.WORKER_CPU, worker="over-channel") == 0.5
    assert value(said, names.WORKER_FACT, worker="over-channel", fact="temperature") == 31.5
    assert value(said, names.WORKER_MAINTENANCE, worker="parked", team="", origin="local") == 1


@on_sqlite_alone
def test_counters_without_a_queue_rise_by_what_happened(api, database, connect, q):
    before = scrape(api)
    over_a_channel(api, database, connect, q)
    over_v1(api, database, q)
    over_the_gateway(api)
    after = scrape(api)

    assert value(after, names.CHANNEL_CONNECTIONS) == 0

    def rise(metric, **labels):
        return value(after, metric, **labels) - value(before, metric, **labels)

    assert rise(names.HEARTBEATS, transport="channel") == 2
    assert rise(names.HEARTBEATS, transport="polling") == 1
    received = {"hello": 1, "heartbeat": 2, "accept": 2, "decline": 1, "job_state": 1, "unknown": 1, "invalid": 1}
    for kind, number in received.items():
        assert rise(names.CHANNEL_MESSAGES, direction="received", type=kind) == number, kind
    for kind in ("welcome", "confirmed", "state_ack", "stale", "error"):
        assert rise(names.CHANNEL_MESSAGES, direction="sent", type=kind) == 1, kind
    assert rise(names.CHANNEL_MESSAGES, direction="sent", type="job") == 2
    assert rise(names.CHANNEL_DISCONNECTS, reason="left") == 1
    assert rise(names.LOG_BYTES_STORED) == 7, "5 bytes, and 2 of the next 5 that were new"
    assert rise(names.LOG_GAPS) == 1
    assert rise(names.OTLP_FORWARDED, signal="traces") > 0
    assert rise(names.OTLP_REJECTED, signal="traces", reason="malformed") == 1


@on_sqlite_alone
def test_a_lost_channel_and_a_refused_one_are_told_apart(api, database, connect, q):
    before = scrape(api)
    far = connect(to=api, state="idle", token=new_token("lost"), name="lost", queues=[q])
    assert value(scrape(api), names.CHANNEL_CONNECTIONS) == 1
    queue(database, queue=q)
    far.hear("job")
    far.socket.socket.close()
    wait_for(lambda: value(scrape(api), names.JOBS_REQUEUED, queue=q, reason="disconnected") == 1, "the offer back")
    worker = {"to": api, "state": "idle", "token": new_token("two"), "name": "two", "queues": ["none"]}
    replaced = connect(**worker)
    connect(**worker, session=str(uuid4()))
    assert close_code(replaced) == CLOSED + 409
    after = scrape(api)
    for reason in ("broken", "refused"):
        ended = [value(said, names.CHANNEL_DISCONNECTS, reason=reason) for said in (before, after)]
        assert ended[1] - ended[0] == 1, reason


@on_sqlite_alone
def test_openmetrics_has_exemplars_that_name_the_task_s_trace(api, traffic, q):
    answer = api.call("GET", "/metrics", headers=OPENMETRICS)
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {family.name: family for family in openmetrics.text_string_to_metric_families(answer.text)}
    assert families.keys() == {name.removesuffix("_total") for name in SERVED}
    for metric in (names.JOB_QUEUE_SECONDS, names.JOB_RUN_SECONDS):
        ours = [s.exemplar for s in families[metric.name].samples if s.labels["queue"] == q and s.exemplar]
        assert ours != []
        assert [exemplar.labels for exemplar in ours] == [{"trace_id": TRACE, "span_id": SPAN}] * len(ours)
    assert TRACE not in scrape(api), "the text format has none"


@on_sqlite_alone
def test_a_task_that_is_not_recorded_is_no_exemplar(api, database, q):
    queue(database, queue=q, carrier={"traceparent": f"00-{TRACE}-{SPAN}-00"})
    token = new_token("w")
    assert api.call("POST", "/v1/worker/w", token, json=registration()).ok
    assert api.call("POST", "/v1/jobs/fetch/w", token, json=wish(queues=[q])).json()["queue"] == q
    exposition = scrape(api, **OPENMETRICS)
    counted = [line for line in exposition.splitlines() if q in line and line.startswith(names.JOB_QUEUE_SECONDS.name)]
    assert counted
    assert [line for line in counted if "trace_id" in line] == []


@on_sqlite_alone
def test_requests_are_timed_by_route_and_nobody_can_make_up_labels(api):
    before = scrape(api)
    for method, path in (("GET", f"/v1/{uuid4()}"), ("PURGE", "/livez"), ("PUT", f"/v1/jobs/fetch/{uuid4()}")):
        assert not api.call(method, path).ok
    after = scrape(api)
    fetch = "/v1/jobs/fetch/{worker_name}"
    for route, method, status in (("other", "GET", 404), ("/livez", "other", 405), (fetch, "PUT", 405)):
        labels = {"route": route, "method": method, "status": str(status)}
        counts = [value(said, names.REQUEST_SECONDS, "_count", **labels) for said in (before, after)]
        assert counts[1] - counts[0] == 1, labels
    routes = {
        dict(labels)["route"] for name, labels in samples(after) if name.endswith("request_duration_seconds_count")
    }
    assert routes <= {"other", *(route.path for route in api.app.routes)}
