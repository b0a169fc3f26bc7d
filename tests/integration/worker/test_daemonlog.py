"""The daemon's log: JSON lines with trace ids, and the same records at a real OTLP receiver."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Start, finished, workload
from edge_worker import logexport
from edge_worker.logexport import LogExport, severity
from fake_server import CUT, FakeCentral
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from demo.otlp import Store
from edge_otel.telemetry import context, names

SECRETS = ("secret-of-the-first", "workload-token-secret", "s3cretpw")


@pytest.fixture
def transport() -> str:
    """The transport does not matter here."""
    return "channel"


@pytest.fixture
def store() -> Iterator[Store]:
    found = Store()
    yield found
    found.stop()


def test_lines_and_records_of_a_job_have_the_trace_of_its_span_and_no_secret(
    central: FakeCentral, start: Start, store: Store
) -> None:
    daemon = start(env={"OTEL_EXPORTER_OTLP_ENDPOINT": store.endpoint}, log_level="debug")
    job = central.offer(
        workload("raise RuntimeError('postgresql://u:s3cretpw@db')"), carrier=context.new_root(sampled=True)
    )
    central.wait_for(finished(job))
    # Whoever is not let in must not tell with what they came.
    central.faults.append(lambda call: CUT if call.headers.get("x-channel") == "heartbeat" else None)
    central.wait_for(lambda: "the channel broke" in daemon.said)
    central.faults.clear()
    daemon.process.terminate()
    assert daemon.process.wait(20) == 0

    lines = [json.loads(line) for line in daemon.said.splitlines()]
    (process,) = [span for span in store.spans() if span.name == "process default"]
    about = [line for line in lines if line["event"].startswith(f"job {job.id}: ")]
    assert [line["event"].split(": ")[1].split(",")[0] for line in about] == ["offered", "started", "failed"]
    for line in about:
        assert (line["trace_id"], line["span_id"]) == (process.trace_id, process.span_id)
        assert line["trace_flags"] == "01"
        assert line[names.JOB_ID] == job.id
        assert (line[names.DAG_ID], line[names.TASK_ID]) == ("dag", "task with/slash")
        assert line[names.RUN_ID] == job.offer["run_id"]
        assert (line[names.MAP_INDEX], line[names.TRY_NUMBER]) == (-1, 1)
    (broken,) = [line for line in lines if "the channel broke" in line["event"]]
    heartbeats = {(span.trace_id, span.span_id) for span in store.spans() if span.name == "heartbeat" and span.failed}
    assert (broken["trace_id"], broken["span_id"]) in heartbeats

    records = {(record.body, record.trace_id, record.span_id): record for record in store.records()}
    for line in lines:
        if line["event"].startswith("outbox"):
            continue
        record = records[line["event"], line.get("trace_id", ""), line.get("span_id", "")]
        assert record.severity == line["level"].upper()
        assert record.resource[names.SERVICE_NAME] == "edge-worker"
        assert record.resource[names.WORKER_NAME] == "site-1"
        assert {key: str(line[key]) for key in record.attributes} == record.attributes
    # From before there was anything to send it with, to the last word.
    assert {lines[0]["event"], "edge-worker has left"} <= {record.body for record in records.values()}
    everything = daemon.said + repr(store.records()) + repr(store.spans())
    assert not [secret for secret in SECRETS if secret in everything]


def test_log_is_text_on_a_terminal_and_json_elsewhere() -> None:
    code = (
        "import logging; from edge_worker import daemonlog; daemonlog.configure('info', {!r});"
        "logging.getLogger('edge_worker').info('hello %s', 'you')"
    )
    ours, theirs = os.openpty()

    def say(style: str, stderr: int) -> bytes:
        ran = subprocess.run([sys.executable, "-c", code.format(style)], stderr=stderr, check=True)
        return ran.stderr or b""

    try:
        assert json.loads(say("auto", subprocess.PIPE))["event"] == "hello you"
        assert say("text", subprocess.PIPE).endswith(b"INFO    hello you\n")
        say("auto", theirs)
        assert os.read(ours, 1000).endswith(b"INFO    hello you\r\n")
        say("json", theirs)
        assert json.loads(os.read(ours, 1000))["level"] == "info"
    finally:
        os.close(ours)
        os.close(theirs)


class Box:
    """The far end of the export, in memory. While it holds, ``put`` blocks as nothing in the daemon would."""

    on = True

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.hold = threading.Event()
        self.hold.set()
        self.reached = threading.Event()
        self.complaints: logging.Logger | None = None

    def wanted(self, signal: str) -> bool:
        return True

    def put(self, signal: str, payload: bytes, items: int = 1) -> bool:
        assert signal == "logs"
        self.reached.set()
        assert self.hold.wait(10)
        self.payloads.append(payload)
        if self.complaints is not None:
            self.complaints.error("a payload of logs is lost")
        return self.complaints is None

    def records(self) -> list[Any]:
        requests = [ExportLogsServiceRequest.FromString(payload) for payload in self.payloads]
        return [
            record
            for request in requests
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def texts(self) -> list[str]:
        return [record.body.string_value for record in self.records()]


@pytest.fixture
def export() -> Iterator[LogExport]:
    found = LogExport()
    yield found
    found.close()


@pytest.fixture
def logger(export: LogExport) -> Iterator[logging.Logger]:
    found = logging.getLogger("edge_worker.under_test")
    found.addHandler(export)
    found.setLevel(logging.DEBUG)
    found.propagate = False
    yield found
    found.removeHandler(export)
    found.propagate = True


def test_what_is_said_before_the_export_starts_is_sent_and_too_much_is_told(
    export: LogExport, logger: logging.Logger
) -> None:
    for number in range(logexport.WAITING + 10):
        logger.info("line %d", number)
    box = Box()
    export.start(box, {})
    export.close()
    texts = box.texts()
    assert [text for text in texts if text.startswith("line")] == [
        f"line {number}" for number in range(10, logexport.WAITING + 10)
    ]
    assert [text for text in texts if not text.startswith("line")] == [
        "10 lines of this log were dropped here: there were too many"
    ]


def test_far_end_that_complains_of_each_payload_does_not_make_payloads(
    export: LogExport, logger: logging.Logger
) -> None:
    box = Box()
    box.complaints = logger
    export.start(box, {})
    logger.info("one")
    export.close()
    assert box.texts() == ["one"]


@pytest.mark.parametrize("name", ["outbox", "forwarding", "spool", "destination"])
def test_way_of_the_records_adds_none_of_its_own_but_warnings(export: LogExport, name: str) -> None:
    told = logging.getLogger(f"edge_worker.{name}")
    assert (Path(logexport.__file__).parent / f"{name}.py").exists()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        export.handle(told.makeRecord(told.name, level, "", 0, logging.getLevelName(level), (), None))
    box = Box()
    export.start(box, {})
    export.close()
    assert box.texts() == ["WARNING"]


def test_far_end_that_hangs_holds_neither_those_who_log_nor_the_exit(
    export: LogExport, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logexport, "CLOSE_WITHIN", 0.05)
    monkeypatch.setattr(logexport, "LINGER", 0.01)
    box = Box()
    box.hold.clear()
    export.start(box, {})
    logger.info("one")
    assert box.reached.wait(10)
    for _ in range(3 * logexport.WAITING):
        logger.info("more")
    export.close()
    assert box.payloads == []
    box.hold.set()


def test_record_has_severity_scope_exception_and_bounded_text(export: LogExport, logger: logging.Logger) -> None:
    box = Box()
    export.start(box, {"service.name": "edge-worker"})
    house: dict[str, str] = {}
    try:
        house["door"]
    except KeyError:
        logger.exception("x" * 100_000)
    export.close()
    (record,) = box.records()
    (resource,) = ExportLogsServiceRequest.FromString(box.payloads[0]).resource_logs
    assert resource.scope_logs[0].scope.name == "edge_worker.under_test"
    assert (record.severity_number, record.severity_text) == (17, "ERROR")
    assert len(record.body.string_value) == logexport.TEXT_MAX
    found = {item.key: item.value.string_value for item in record.attributes}
    assert (found[names.EXCEPTION_TYPE], found[names.EXCEPTION_MESSAGE]) == ("KeyError", "'door'")
    assert found[names.EXCEPTION_STACKTRACE].rstrip().endswith("KeyError: 'door'")
    assert 0 < record.time_unix_nano <= record.observed_time_unix_nano


def test_name_of_a_file_that_is_no_text_costs_no_record(export: LogExport, logger: logging.Logger) -> None:
    box = Box()
    export.start(box, {})
    logger.info("cannot read %s", "a\udcff")
    logger.error("nor this", exc_info=OSError("b\udcff"))
    export.close()
    assert box.texts() == ["cannot read a?", "nor this"]
    found = {item.key: item.value.string_value for item in box.records()[1].attributes}
    assert found[names.EXCEPTION_MESSAGE] == "b?"
    assert found[names.EXCEPTION_STACKTRACE] == "OSError: b?\n"


def test_levels_are_severities_of_the_data_model() -> None:
    assert [severity(level) for level in (1, 10, 20, 25, 30, 40, 50, 99)] == [5, 5, 9, 9, 13, 17, 21, 21]
