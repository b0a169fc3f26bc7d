"""The daemon's spans, as a real OTLP receiver gets them."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Start, finished, workload
from edge_worker import oom, processes
from edge_worker.journal import Started
from edge_worker.spans import Spans
from fake_server import Answer, Call, FakeCentral, FakeJob, refusal
from opentelemetry.sdk.trace.export import SpanExporter

from demo.otlp import Store
from demo.spans import Span
from edge_otel.telemetry import context, names
from edge_otel.telemetry.spans import Recorder, resource

FOREVER = "log(b'begun\\n'); wait_for_file('/nonexistent')"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + FOREVER
OPTIONAL = {names.ERROR_TYPE, names.EXIT_CODE, names.JOB_CPU_TIME, names.JOB_MEMORY_PEAK, names.HTTP_STATUS}
"""Attributes that only some spans of their kind have."""


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """Which transport matters in few of these tests."""
    return str(getattr(request, "param", "channel"))


@pytest.fixture
def store() -> Iterator[Store]:
    found = Store()
    yield found
    found.stop()


Trace = Callable[..., Daemon]


@pytest.fixture
def traced(start: Start, store: Store) -> Trace:
    """Start a daemon that exports to the store."""

    def begin(env: dict[str, str] | None = None, **options: Any) -> Daemon:
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": store.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        return start(env={**export, **(env or {})}, **options)

    return begin


def of(store: Store, kind: names.Span, job: FakeJob | None = None) -> list[Span]:
    found = [span for span in store.spans() if span.name.split(" default")[0] == kind.operation]
    return [span for span in found if job is None or span.attributes[names.JOB_ID] == job.id]


def offer(central: FakeCentral, do: str, **more: Any) -> FakeJob:
    """Offer a job of a sampled trace."""
    return central.offer(workload(do), carrier=context.new_root(sampled=True), **more)


def hold(central: FakeCentral, job: FakeJob) -> None:
    central.wait_for(lambda: job.log)


def leave(daemon: Daemon) -> None:
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0


def test_each_span_of_the_worker_is_emitted_with_the_attributes_of_the_catalogue(
    central: FakeCentral, store: Store, traced: Trace, tmp_path: Path
) -> None:
    once: list[Call] = []

    def fail(call: Call) -> Answer | None:
        """The first registration is refused; the first log chunk and the first heartbeat are not answered."""
        kind = next((k for k in ("hello", "heartbeat") if call.headers.get("x-channel") == k), call.path[-4:])
        if kind not in ("hello", "heartbeat", "/log") or any(kind == seen.headers["kind"] for seen in once):
            return None
        call.headers["kind"] = kind
        once.append(call)
        return refusal(422, "BadInput") if kind == "hello" else Answer(503)

    central.faults.append(fail)
    refused = traced(registered=False)
    assert refused.process.wait(20) == 3
    daemon = traced(heartbeat_sampling="1")
    well = offer(central, "log(b'hello')")
    central.wait_for(finished(well))
    stub = tmp_path / "stub-python"
    stub.rename(tmp_path / "away")
    ill = offer(central, "pass")
    central.wait_for(finished(ill))
    (tmp_path / "away").rename(stub)
    daemon.command("maintenance", "on")
    daemon.command("maintenance", "off")
    # It has connected again.
    central.wait_for(lambda: len(of(store, names.REGISTER)) == 3)
    leave(daemon)

    mine = [span for span in names.SPANS if span.service == "edge-worker"]
    assert {span.name for span in store.spans()} == {span.named("default") for span in mine}
    for kind in mine:
        listed = set(kind.attributes)
        found = of(store, kind)
        assert {frozenset(span.attributes) - listed for span in found} == {frozenset()}, kind
        assert set.union(*(set(span.attributes) for span in found)) == listed, kind
        # A worker that was refused, or has just lost its channel, has none.
        spared = OPTIONAL | ({names.TRANSPORT} if kind in (names.REGISTER, names.HEARTBEAT) else set())
        assert all(listed - spared <= set(span.attributes) for span in found), kind
        assert {span.kind for span in found} == {kind.kind}
        assert all(span.failed == (names.ERROR_TYPE in span.attributes) for span in found)
        for span in found:
            assert resource("edge-worker", **{names.WORKER_NAME: "site-1"}).items() <= span.resource.items()
            assert span.start <= span.end
            for name in set(kind.attributes) & set(span.attributes):
                assert not name_values(kind, name) or span.attributes[name] in name_values(kind, name)
    process = of(store, names.PROCESS, well)[0]
    for kind in (names.LAUNCH, names.SHIP_LOG):
        assert {span.parent_id for span in of(store, kind, well)} == {process.span_id}
        assert {span.trace_id for span in of(store, kind, well)} == {process.trace_id}
    assert process.parent_id == context.ids(well.offer["carrier"])[1]
    assert [span.failed for span in of(store, names.LAUNCH, ill)] == [True, True]
    (failed,) = of(store, names.PROCESS, ill)
    assert (failed.attributes[names.JOB_OUTCOME], failed.attributes[names.ERROR_TYPE]) == ("failed", "launch_failed")
    causes = [span.attributes[names.CAUSE] for span in of(store, names.REGISTER)]
    assert causes == ["start", "start", "reconnect"]
    assert [span.attributes[names.CAUSE] for span in of(store, names.DRAIN)] == ["signal"]
    assert [span.attributes[names.CAUSE] for span in of(store, names.MAINTENANCE)] == ["local"]


def name_values(kind: names.Span, name: str) -> tuple[str, ...]:
    return next(attribute.values for attribute in kind.attributes if attribute == name)


ENDINGS: dict[str, tuple[str, str | None]] = {
    "log(b'x')": ("success", None),
    "state = 'failed'": ("failed", "task_failed"),
    "state = 'up_for_retry'": ("failed", "task_failed"),
    "code = 3": ("failed", "task_failed"),
    "code, state = -9, 'up_for_retry'": ("killed", "signal_9"),
    "os.kill(os.getpid(), 9)": ("killed", "signal_9"),
    "1 / 0": ("failed", "supervisor_failed"),
}


@pytest.mark.parametrize("launch", ["zygote", "interpreter"])
def test_each_end_of_a_job_has_its_outcome_and_why_once(
    central: FakeCentral, store: Store, traced: Trace, launch: str
) -> None:
    daemon = traced(launch=launch, concurrency=20, kill_grace=0.2)
    held = [offer(central, STUBBORN) for _ in range(3)]
    jobs = [(offer(central, do), *how) for do, how in ENDINGS.items()]
    for job, _, _ in jobs:
        central.wait_for(finished(job))
    for job in held:
        hold(central, job)
    cancelled, stale, drained = held
    assert central.channel is not None
    for job, kind in ((cancelled, "cancel"), (stale, "stale")):
        central.channel.send(type=kind, id=job.id, claim=1)
        central.wait_for(lambda job=job: of(store, names.PROCESS, job))
    daemon.process.terminate()
    central.wait_for(lambda: central.last()["state"] == "terminating")
    leave(daemon)
    expected = [
        *jobs,
        (cancelled, "stale", "cancelled"),
        (stale, "stale", "stale_claim"),
        (drained, "killed", "stopped_by_worker"),
    ]
    for job, outcome, error_type in expected:
        (span,) = of(store, names.PROCESS, job)
        found = (span.attributes[names.JOB_OUTCOME], span.attributes.get(names.ERROR_TYPE), span.failed)
        assert found == (outcome, error_type, error_type is not None), job.offer["command"]["do"]
    (measured,) = of(store, names.PROCESS, jobs[0][0])
    assert float(measured.attributes[names.JOB_CPU_TIME]) < 60
    assert 1e6 < int(measured.attributes[names.JOB_MEMORY_PEAK]) < 1e10
    assert {span.attributes[names.JOB_LAUNCH_MODE] for span in of(store, names.PROCESS)} == {launch}


def report_of(daemon: Daemon) -> dict[str, Any] | None:
    """What the journal says of the end of the only job."""
    for folder in daemon.folders():
        if (folder / "report.json").exists():
            return dict(json.loads((folder / "report.json").read_text()))
    return None


@pytest.mark.parametrize("recorded", [True, False])
def test_span_of_a_job_is_sent_again_after_a_crash_only_if_the_journal_does_not_know_it(
    central: FakeCentral, store: Store, traced: Trace, recorded: bool
) -> None:
    first = traced()
    central.faults.append(lambda call: Answer(503) if call.path.endswith("/success") else None)
    job = offer(central, "log(b'x')")
    central.wait_for(lambda: of(store, names.PROCESS, job) and (report_of(first) or {}).get("recorded"))
    # Else the spool would send it again, by itself.
    central.wait_for(lambda: not list((first.state_dir / "outbox").glob("*-traces-*")))
    first.process.kill()
    first.process.wait(10)
    if not recorded:
        path = first.folders()[0] / "report.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "recorded": False}))
    central.faults.clear()
    second = traced()
    central.wait_for(lambda: job.end is not None and second.folders() == [])
    leave(second)
    found = of(store, names.PROCESS, job)
    assert len(found) == (1 if recorded else 2)
    assert len({(span.span_id, span.start, span.end) for span in found}) == 1
    assert found[0].attributes[names.JOB_OUTCOME] == "success"


def test_spans_of_a_job_whose_end_is_reported_outlive_a_kill_of_the_daemon(
    central: FakeCentral, store: Store, traced: Trace
) -> None:
    first = traced(env={"OTEL_BSP_SCHEDULE_DELAY": "5000"})
    job = offer(central, "log(b'x')")
    central.wait_for(lambda: job.end)
    first.process.kill()
    first.process.wait(10)
    second = traced()
    central.wait_for(lambda: second.folders() == [])
    leave(second)
    for kind in (names.PROCESS, names.LAUNCH):
        assert {span.parent_id for span in of(store, kind, job)} == {
            names.PROCESS: {context.ids(job.offer["carrier"])[1]},
            names.LAUNCH: {span.span_id for span in of(store, names.PROCESS, job)},
        }[kind]


def test_stale_job_whose_daemon_dies_meanwhile_is_ended_and_recorded_as_stale_by_the_next(
    central: FakeCentral, store: Store, traced: Trace
) -> None:
    first = traced(kill_grace=60)
    job = offer(central, STUBBORN)
    hold(central, job)
    assert central.channel is not None
    central.channel.send(type="cancel", id=job.id, claim=1)
    report = central.wait_for(lambda: report_of(first))
    assert (report["outcome"], report["error_type"]) == ("stale", "cancelled")
    process = Started(**json.loads((first.folders()[0] / "process.json").read_text()))
    first.process.kill()
    first.process.wait(10)
    assert processes.alive(process)
    second = traced(kill_grace=0.1)
    central.wait_for(lambda: of(store, names.PROCESS, job))
    assert not processes.alive(process)
    leave(second)
    (span,) = of(store, names.PROCESS, job)
    assert (span.attributes[names.JOB_OUTCOME], span.attributes[names.ERROR_TYPE]) == ("stale", "cancelled")


def test_row_of_failures_of_one_chunk_of_a_log_is_one_span(central: FakeCentral, store: Store, traced: Trace) -> None:
    failed: list[Call] = []

    def fail(call: Call) -> Answer | None:
        if call.path.endswith("/log") and len(failed) < 3:
            failed.append(call)
            return Answer(503)
        return None

    central.faults.append(fail)
    daemon = traced()
    job = offer(central, "log(b'x' * 3000)")
    central.wait_for(finished(job))
    leave(daemon)
    good, bad = sorted(of(store, names.SHIP_LOG, job), key=lambda span: span.failed)
    assert (bad.failed, bad.attributes[names.ERROR_TYPE], bad.attributes[names.HTTP_STATUS]) == (
        True,
        "unreachable",
        "503",
    )
    assert (good.failed, good.attributes[names.HTTP_STATUS]) == (False, "202")
    for span in (bad, good):
        assert (span.attributes[names.LOG_OFFSET], span.attributes[names.LOG_BYTES]) == ("0", "3000")
    sent = [call.headers["traceparent"].split("-")[2] for call in central.calls if call.path.endswith("/log")]
    assert sent[2:] == [bad.span_id, good.span_id]


@pytest.mark.parametrize(
    ("transport", "told", "local", "flags"),
    [
        ("channel", 0.0, None, {"00"}),
        ("polling", 1.0, None, {"01"}),
        ("channel", 0.0, "1", {"01"}),
        ("polling", 1.0, "0", {"00"}),
    ],
    indirect=["transport"],
)
def test_context_of_every_heartbeat_travels_flagged_when_sampled_or_the_state_changed(
    central: FakeCentral, store: Store, traced: Trace, told: float, local: str | None, flags: set[str]
) -> None:
    central.settings["heartbeat_sampling"] = told
    daemon = traced(heartbeat_sampling=local)
    central.wait_for(lambda: len(central.reports) >= 5)
    leave(daemon)
    kinds = {"POST": "register", "PATCH": "heartbeat"}
    said = [
        (kinds[call.method], call.json["state"], call.headers["traceparent"].split("-"))
        for call in central.calls
        if "v1/worker/" in call.path
    ]
    assert said[0][:2] == ("register", "starting")
    assert said[0][2][3] == "01"
    changed = [before[1] != after[1] for before, after in itertools.pairwise(said)]
    for (_, _, parts), new in zip(said[1:], changed, strict=True):
        assert parts[3] in ({"01"} if new else flags)
    spans = {(span.trace_id, span.span_id): span.name for span in store.spans()}
    sent = {(parts[1], parts[2]): kind for kind, _, parts in said if parts[3] == "01"}
    # The last but the farewell may have been on its way when the daemon left.
    assert [kind for key, kind in sent.items() if spans.get(key) != kind and key != tuple(said[-2][2][1:3])] == []
    assert len({parts[1] for _, _, parts in said}) == len(said)


def test_maintenance_that_outlives_a_daemon_is_one_span_from_its_begin(
    central: FakeCentral, store: Store, traced: Trace
) -> None:
    first = traced()
    first.command("maintenance", "on", "--comment", "new disks")
    leave(first)
    assert of(store, names.MAINTENANCE) == []
    before = max(span.end for span in store.spans())
    second = traced()
    second.command("maintenance", "off")
    leave(second)
    (span,) = of(store, names.MAINTENANCE)
    assert span.start < before < span.end


CGROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A memory cgroup of 200 MB, where root may make one (v1)."""
    folder = CGROUP / f"edge-worker-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text("200M")
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield folder
    for pid in (folder / "cgroup.procs").read_text().split():
        (CGROUP / "cgroup.procs").write_text(pid)
    folder.rmdir()


def test_task_that_the_kernel_kills_for_want_of_memory_is_out_of_memory(
    central: FakeCentral, store: Store, traced: Trace, small: Path
) -> None:
    daemon = traced()
    (small / "cgroup.procs").write_text(str(daemon.pid))
    job = offer(central, "log(b'x'); found = bytearray(600 * 1024 * 1024)")
    central.wait_for(lambda: job.end)
    leave(daemon)
    (span,) = of(store, names.PROCESS, job)
    assert (span.attributes[names.JOB_OUTCOME], span.attributes[names.ERROR_TYPE]) == ("killed", "out_of_memory")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/site\n", {"cgroup/site/memory.events": "low 0\noom 9\noom_kill 2\n"}, 2),
        ("0::/of/the/host\n", {"cgroup/memory.events": "oom_kill 3\n"}, 3),
        ("5:cpu:/x\n4:memory:/x\n0::/\n", {"cgroup/memory/x/memory.oom_control": "under_oom 0\noom_kill 4\n"}, 4),
        ("0::/\n", {}, 5),
        (None, {}, 5),
    ],
)
def test_kills_for_memory_are_those_of_the_nearest_that_counts(
    tmp_path: Path, groups: str | None, files: dict[str, str], expected: int
) -> None:
    found = {"proc/vmstat": "nr_free 7\noom_kill 5\n", **files, **({"proc/self/cgroup": groups} if groups else {})}
    for name, text in found.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom.kills(tmp_path / "proc", tmp_path / "cgroup") == expected
    assert oom.kills(tmp_path / "nothing", tmp_path / "nothing") is None


def test_sdk_that_cannot_be_loaded_costs_spans_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    def exporter() -> SpanExporter:
        raise ImportError("broken on purpose")

    async def written() -> None:
        pass

    spans = Spans("site-1", Recorder({}, exporter), written)
    spans.drained(1, 2, 0, "signal")
    spans.flush()
    spans.drained(2, 3, 0, "signal")
    spans.close()
    assert "broken on purpose" in caplog.text
