"""``GET /metrics``: what it says of real traffic, who may read it, and what it says without a database."""

from __future__ import annotations

import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest
import requests
from airflow_database import use
from channels import close_code, now, queue, state, wait_for
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from rows import claim, queue_job, register
from served import FACTS, Api, coordinates, new_token, registration, wish
from sqlalchemy import event, text
from starlette.requests import Request
from tools import missing

from edge_otel.api import metrics
from edge_otel.messages import CLOSED, Accept, Decline
from edge_otel.models import jobs, workers
from edge_otel.state import JobState, WorkerState
from edge_otel.telemetry import names

on_sqlite_alone = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

SERVED = {metric.name: metric for metric in (*names.FLEET, *names.PROCESS_METRICS)}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CARRIER = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Let every scrape read the database, unless the test says otherwise."""
    monkeypatch.setattr(metrics, "KEPT", 0.0)


def scrape(api, **headers):
    answer = api.call("GET", "/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def samples(exposition):
    """Return every sample of ours by its name and labels; none is there twice."""
    found = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(exposition, metric, suffix="", **labels):
    return samples(exposition).get((metric.name + suffix, frozenset(labels.items())), 0.0)


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


def of_fleet(api):
    """Return what is said of the fleet, without its age."""
    exposition = scrape(api)
    return exposition[
        exposition.index("# HELP edge_worker_state ") : exposition.index(f"# HELP {names.SNAPSHOT_AGE.name}")
    ]


@on_postgresql
def test_every_replica_says_the_same_of_the_fleet(start_api, database):
    with database() as session:
        worker = register(session, "w", now(), queues=["a"], connection=str(uuid4()))
        for _ in range(3):
            queue_job(session, now(), queue="a", slots=2)
        ended, _ = [claim(session, worker, now()) for _ in range(2)]
        jobs.record_report(ended, JobState.FAILED, ended.claim, now())
    with database() as session:
        # Ages of jobs depend on the moment.
        session.execute(text("UPDATE edge_otel_job SET queued_at = queued_at + interval '1 hour'"))
    first, second = start_api(), start_api()
    assert of_fleet(first) == of_fleet(second)
    said = scrape(second)
    assert value(said, names.QUEUE_WORKERS, queue="a", team="") == 1
    assert value(said, names.QUEUE_SLOTS_USED, queue="a", team="") == 2
    assert value(said, names.WORKER_SLOTS_USED, worker="w", team="") == 2
    assert value(said, names.QUEUE_OLDEST, queue="a", team="") == 0, "queued in an hour"


def test_a_silent_worker_keeps_its_time_becomes_unknown_and_vanishes_when_it_is_removed(start_api, database):
    api = start_api()
    heard = now().replace(microsecond=0) - timedelta(hours=1)
    with database() as session:
        register(session, "w", heard)
    assert value(scrape(api), names.WORKER_STATES, worker="w", team="", state="starting") == 1
    with database() as session:
        assert workers.expire_silent(session, 30.0, now()) == ["w"]
    said = scrape(api)
    assert value(said, names.WORKER_STATES, worker="w", team="", state="starting") == 0
    assert value(said, names.WORKER_STATES, worker="w", team="", state="unknown") == 1
    assert value(said, names.WORKER_STATE_CODE, worker="w", team="") == names.STATE_CODES["unknown"]
    assert value(said, names.WORKER_LAST_HEARTBEAT, worker="w", team="") == heard.timestamp()
    with database() as session:
        workers.remove(session, "w")
    assert 'worker="w"' not in scrape(api)


def test_a_snapshot_takes_as_many_statements_for_many_workers_as_for_one(start_api, database):
    from airflow import settings

    api = start_api()
    asked = []
    note = lambda *args: asked.append(args[2])  # noqa: E731
    event.listen(settings.engine, "before_cursor_execute", note)
    try:
        numbers = []
        for names_of in (["w"], [f"w{i}" for i in range(30)]):
            with database() as session:
                for name in names_of:
                    register(session, name, now())
            asked.clear()
            scrape(api)
            numbers.append(len([statement for statement in asked if "edge_otel" in statement]))
    finally:
        event.remove(settings.engine, "before_cursor_execute", note)
    assert numbers == [3, 3]


@on_postgresql
def test_scrapes_at_once_make_one_read(start_api, database, monkeypatch):
    from airflow import settings

    monkeypatch.setattr(metrics, "KEPT", 60.0)
    api = start_api()
    reads = []
    note = lambda *args: reads.append(args[2]) if "FROM edge_otel_worker" in args[2] else None  # noqa: E731
    event.listen(settings.engine, "before_cursor_execute", note)
    try:
        with ThreadPoolExecutor(25) as threads:
            answers = list(threads.map(lambda _: requests.get(f"{api.url}/metrics", timeout=20), range(50)))
    finally:
        event.remove(settings.engine, "before_cursor_execute", note)
    assert {answer.status_code for answer in answers} == {200}
    assert len(reads) == 1


@on_sqlite_alone
def test_without_a_database_the_process_is_still_told_of_and_the_snapshot_ages(start_api, database_url, database):
    api = start_api()
    with database() as session:
        register(session, "w", now())
    assert 'worker="w"' in scrape(api)
    use("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    try:
        first, second = scrape(api), scrape(api)
    finally:
        use(database_url)
    for said in (first, second):
        assert "edge_heartbeats_total" in said
        assert "edge_worker_state" not in said
    assert 0 < value(first, names.SNAPSHOT_AGE) < value(second, names.SNAPSHOT_AGE)
    assert 'worker="w"' in scrape(api)


@on_postgresql
def test_a_database_that_does_not_answer_holds_nobody_up(start_api, database, monkeypatch):
    monkeypatch.setattr(metrics, "WITHIN", 0.2)
    api = start_api()
    with database() as session:
        register(session, "w", now())
    with database() as session:
        session.execute(text("LOCK TABLE edge_otel_worker IN ACCESS EXCLUSIVE MODE"))
        began = datetime.now(UTC)
        with ThreadPoolExecutor(10) as threads:
            said = list(threads.map(lambda _: requests.get(f"{api.url}/metrics", timeout=20).text, range(20)))
        assert datetime.now(UTC) - began < timedelta(seconds=2)
    assert all("edge_heartbeats_total" in one and "edge_worker_state" not in one for one in said)
    wait_for(lambda: 'worker="w"' in scrape(api), "the fleet to be there again")


PROXIES = [{"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}]


@on_sqlite_alone
@pytest.mark.parametrize(
    ("token", "right", "wrong"),
    [
        ("", [], ["Bearer ", "Bearer", "Bearer x"]),
        ("secret", ["Bearer secret", "bearer  secret "], ["Bearer Secret", "Bearer secret2", "Basic secret", "secret"]),
        ("sécret", [b"Bearer s\xc3\xa9cret"], [b"Bearer s\xe9cret"]),
    ],
)
def test_from_elsewhere_metrics_are_read_with_their_token_alone(start_api, token, right, wrong):
    api = start_api(metrics_token=token)
    assert api.call("GET", "/metrics").status_code == 200, "from this host"
    for proxy in PROXIES:
        refused = [api.call("GET", "/metrics", headers=proxy | {"Authorization": sent}) for sent in ["", *wrong]]
        assert [answer.status_code for answer in refused] == [403] * len(refused)
        assert {answer.json()["error"] for answer in refused} == {"MetricsForbidden"}
        assert "[edge] metrics_token" in refused[0].json()["detail"]
        allowed = [api.call("GET", "/metrics", headers=proxy | {"Authorization": sent}) for sent in right]
        assert [answer.status_code for answer in allowed] == [200] * len(allowed)


@on_sqlite_alone
def test_a_worker_s_token_opens_no_metrics(start_api, database):
    api = start_api(metrics_token="secret")
    assert api.call("GET", "/metrics", new_token("w"), headers=PROXIES[0]).status_code == 403


@pytest.mark.parametrize(
    ("client", "local"),
    [
        (("127.0.0.1", 1), True),
        (("127.8.9.1", 1), True),
        (("::1", 1), True),
        (("::ffff:127.0.0.1", 1), True),
        (("10.0.0.1", 1), False),
        (("::ffff:10.0.0.1", 1), False),
        (("2001:db8::1", 1), False),
        (("localhost", 1), False),
        (("", 0), False),
        (None, False),
    ],
)
def test_local_is_who_comes_from_a_loopback_address(client, local):
    request = Request({"type": "http", "client": client, "headers": []})
    assert metrics.is_direct(request) is local


@on_sqlite_alone
def test_an_answer_is_compressed_only_if_asked_for(start_api, database):
    api = start_api()
    plain = api.call("GET", "/metrics", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    small = api.call("GET", "/metrics", headers={"Accept-Encoding": "deflate, gzip"})
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert small.text.startswith("# HELP edge_")
