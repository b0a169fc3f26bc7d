"""The far end of the wire: an Edge API and an Execution API over a real socket, kept in memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import payloads
from fake_channel import PATH as CHANNEL_PATH
from fake_channel import FakeChannel

JSON = {"Content-Type": "application/json"}

CUT = object()
"""As the answer of a fault: the connection is closed without one."""

CUT_AFTER = object()
"""The request is obeyed, and the connection closed without an answer: a lost answer."""


@dataclass
class Call:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]
    time: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


@dataclass
class FakeJob:
    """What the central side knows of one job."""

    offer: dict[str, Any]
    state: str = "queued"
    end: dict[str, Any] | None = None
    log: bytearray = field(default_factory=bytearray)
    withdrawn: int | None = None
    """The claim that was ended here while it ran: its log is still taken, and its end noted, but answered as stale."""

    def withdraw(self) -> None:
        """Nobody wants the job any more."""
        self.withdrawn = self.offer["claim"]
        self.offer = {**self.offer, "claim": self.withdrawn + 1}

    @property
    def id(self) -> str:
        return str(self.offer["task_instance_id"])

    @property
    def log_complete(self) -> bool:
        return (
            self.end is not None
            and len(self.log) == self.end["log_length"]
            and hashlib.sha256(self.log).hexdigest() == self.end["log_sha256"]
        )


@dataclass
class Telemetry:
    """One OTLP request that was taken."""

    signal: str
    payload: bytes
    """Decompressed."""
    call: Call

    @classmethod
    def of(cls, call: Call) -> Telemetry:
        body = gzip.decompress(call.body) if call.headers.get("content-encoding") == "gzip" else call.body
        return cls(call.path.rpartition("/")[2], body, call)

    @property
    def names(self) -> list[str]:
        """Names of spans or metrics, bodies of log records, in their order."""
        return payloads.names(self.signal, self.payload)


PAGE = Answer(200, raw=b"<html>Please log in to the guest network</html>", headers={"Content-Type": "text/html"})
"""What a network answers in place of the server."""


def refusal(status: int, error: str, detail: str = "because the test says so") -> Answer:
    return Answer(status, {"error": error, "detail": detail, "error_id": "e-1"})


def execution_refusal(status: int, detail: Any) -> Answer:
    """As Airflow's Execution API refuses."""
    return Answer(status, {"detail": detail}, JSON)


class FakeCentral:
    """One worker's central site. ``wait_for`` waits for what its requests bring about, never for time."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.calls: list[Call] = []
        self.jobs: dict[str, FakeJob] = {}
        self.queue: deque[str] = deque()
        self.reports: list[dict[str, Any]] = []
        self.executions: list[Call] = []
        self.faults: list[Callable[[Call], Any]] = []
        self.ahead = timedelta(0)
        """Of its clock."""
        self.task_token: str | None = None
        """What tasks must show to the Execution API; None takes any. The site gets it when it asks for a new one."""
        self.token = "ewt_one.secret-of-the-first"
        self.known = True
        self.registered = False
        self.state: str | None = None
        self.queues: list[str] | None = None
        self.concurrency: int | None = None
        self.comment: str | None = None
        self.origin: str | None = None
        self.settings: dict[str, Any] = {
            "heartbeat_interval": 0.2,
            "poll_interval": 0.1,
            "log_interval": 0.05,
            "log_chunk_bytes": 4096,
        }
        self._down = False
        self.traces: list[bytes] = []
        self.telemetry: list[Telemetry] = []
        """What the gateway took."""
        self.collected: list[Telemetry] = []
        """What came without the gateway, as to a collector."""
        self.connections = 0
        self.channels: list[FakeChannel] = []
        """All that were welcomed, the newest last."""
        self.upgrades: list[Call] = []
        self.refuse_upgrade: Callable[[Call], Any] = lambda call: None
        """Returns the HTTP answer instead of a WebSocket, or None."""
        self._serve(0, tls)

    def _serve(self, port: int, tls: ssl.SSLContext | None) -> None:
        central = self

        class Handler(FakeHandler):
            pass

        Handler.central = central
        self.server = QuietServer(("127.0.0.1", port), Handler)
        self.server.central = self
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        scheme = "https" if tls else "http"
        self.origin = f"{scheme}://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/edge_worker"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self) -> None:
        for channel in self.channels:
            channel.cut()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def offer(self, command: dict[str, Any], **changes: Any) -> FakeJob:
        """Queue a job."""
        job = FakeJob(
            {
                "dag_id": "dag",
                "task_id": "task with/slash",
                "run_id": "manual__2026-01-01T00:00:00+00:00",
                "map_index": -1,
                "try_number": 1,
                "command": command,
                "concurrency_slots": 1,
                "task_instance_id": str(uuid4()),
                "claim": 1,
                "queue": "default",
                "carrier": {},
                **changes,
            }
        )
        with self.changed:
            self.jobs[job.id] = job
            self.queue.append(job.id)
            self.push()
        return job

    @property
    def down(self) -> bool:
        """Nothing is answered any more; setting it cuts the channel."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        self._down = down
        if down and self.channel is not None:
            self.channel.cut()

    @property
    def channel(self) -> FakeChannel | None:
        """The open channel."""
        return self.channels[-1] if self.channels and self.channels[-1].open else None

    def plug(self, channel: FakeChannel) -> None:
        """A channel was welcomed."""
        self.channels.append(channel)

    def unplug(self, channel: FakeChannel) -> None:
        """A channel has ended: what was offered on it and not accepted returns to the queue."""
        for job_id, claim in channel.offered.items():
            job = self.jobs[job_id]
            if job.offer["claim"] == claim and job.state == "assigned":
                self.requeue(job)

    def requeue(self, job: FakeJob) -> None:
        job.state = "queued"
        job.offer = {**job.offer, "claim": job.offer["claim"] + 1}
        self.queue.append(job.id)

    def push(self) -> None:
        """Offer queued jobs on the channel while the worker has free slots."""
        channel = self.channel
        if channel is None or channel.closed or self.last()["state"] not in ("starting", "idle", "running"):
            return
        held = sum(job["slots"] for job in self.last()["jobs"])
        free = self.last()["sysinfo"]["concurrency"] - held
        free -= sum(self.jobs[id_].offer["concurrency_slots"] for id_ in channel.offered)
        while self.queue and self.jobs[self.queue[0]].offer["concurrency_slots"] <= free:
            job = self.jobs[self.queue.popleft()]
            free -= job.offer["concurrency_slots"]
            job.state = "assigned"
            channel.offered[job.id] = job.offer["claim"]
            channel.send(type="job", **job.offer)

    def wait_for(self, condition: Callable[[], Any], timeout: float = 30.0) -> Any:
        """Return what ``condition`` gives once that is true."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while not (value := condition()):
                left = deadline - time.monotonic()
                assert left > 0, "what the test waits for did not happen"
                # Files and processes change without a request: look again soon.
                self.changed.wait(min(left, 0.05))
            return value

    def last(self) -> dict[str, Any]:
        return self.reports[-1] if self.reports else {}

    def answer(self, call: Call) -> Any:
        """Return the answer to a call."""
        for fault in list(self.faults):
            found = fault(call)
            if found is not None and found is not CUT_AFTER:
                return found
            if found is CUT_AFTER:
                self.act(call)
                return CUT
        return self.act(call)

    def act(self, call: Call) -> Any:
        path = urlsplit(call.path).path
        if path.startswith("/execution/"):
            if self.task_token is not None and call.headers.get("authorization") != f"Bearer {self.task_token}":
                return execution_refusal(403, "Invalid auth token")
            self.executions.append(call)
            return self.execute(call, path.removeprefix("/execution/"))
        if path in ("/v1/traces", "/v1/metrics", "/v1/logs"):
            self.collected.append(Telemetry.of(call))
            if path == "/v1/traces":
                self.traces.append(self.collected[-1].payload)
            return Answer(200, raw=b"")
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return refusal(403, "Forbidden")
        rest = path.removeprefix("/edge_worker/")
        if rest.startswith("v1/worker/"):
            return self.worker(call)
        if rest.startswith("v1/jobs/fetch/"):
            return self.fetch(call)
        if rest.startswith("v1/jobs/state/"):
            return self.job_state(call, [unquote(part) for part in rest.split("/")[3:]])
        if match := re.fullmatch(r"v2/jobs/([^/]+)/log", rest):
            return self.log(call, match[1])
        if match := re.fullmatch(r"v2/jobs/([^/]+)/token", rest):
            return self.new_token(call, match[1])
        if rest.startswith("v2/otlp/v1/"):
            assert self.settings.get("otlp"), "telemetry was sent to a gateway without a collector"
            self.telemetry.append(Telemetry.of(call))
            return Answer(200, raw=b"", headers={"Content-Type": "application/x-protobuf"})
        return Answer(404, {"detail": "Not Found"})

    def worker(self, call: Call) -> Answer:
        if call.method == "POST":
            self.registered = True
        elif not self.registered:
            return refusal(404, "WorkerNotFound")
        report = call.json
        self.reports.append(report)
        now = (datetime.now(UTC) + self.ahead).isoformat()
        return Answer(
            200,
            {
                "state": self.state or report["state"],
                "last_update": now,
                "queues": self.queues if self.queues is not None else report.get("queues"),
                "maintenance_comments": self.comment or report.get("maintenance_comments"),
                "maintenance_origin": self.origin or report.get("maintenance_origin"),
                "concurrency": self.concurrency,
                "versions_match": True,
                "settings": {"execution_api_url": f"{self.origin}/execution/", "server_time": now, **self.settings},
            },
        )

    def fetch(self, call: Call) -> Answer:
        if not self.queue:
            return Answer(200, None)
        job = self.jobs[self.queue.popleft()]
        job.state = "assigned"
        return Answer(200, job.offer)

    def job_state(self, call: Call, parts: list[str]) -> Answer:
        body = call.json
        job = self.jobs.get(body["task_instance_id"])
        if job is None:
            return refusal(404, "JobNotFound")
        key = [job.offer[name] for name in ("dag_id", "task_id", "run_id", "try_number", "map_index")]
        assert parts[:5] == [str(part) for part in key], parts
        if body["claim"] != job.offer["claim"] or (parts[5] == "running" and (job.end or job.state == "queued")):
            if body["claim"] == job.withdrawn:
                job.end = body
            return refusal(409, "StaleClaim")
        job.state = parts[5]
        if parts[5] in ("success", "failed"):
            job.end = body
        return Answer(200, None)

    def log(self, call: Call, job_id: str) -> Answer:
        job = self.jobs.get(job_id)
        if job is None:
            return refusal(404, "JobNotFound")
        if int(call.headers["x-claim"]) not in (job.offer["claim"], job.withdrawn):
            return refusal(409, "StaleClaim")
        cursor = {"Range": f"bytes=0-{len(job.log) - 1}"} if job.log else {}
        if call.method == "HEAD":
            return Answer(200, raw=b"", headers=cursor)
        body = gzip.decompress(call.body) if call.headers.get("content-encoding") == "gzip" else call.body
        found = re.fullmatch(r"bytes (\d+)-(\d+)/\*", call.headers["content-range"])
        assert found is not None
        first, last = int(found[1]), int(found[2])
        assert last - first + 1 == len(body)
        if first > len(job.log):
            return Answer(416, refusal(416, "LogGap").body, headers=cursor)
        job.log += body[len(job.log) - first :]
        return Answer(202, None, headers={"Range": f"bytes=0-{len(job.log) - 1}"})

    def new_token(self, call: Call, job_id: str) -> Answer:
        job = self.jobs.get(job_id)
        if job is None:
            return refusal(404, "JobNotFound")
        if int(call.headers["x-claim"]) != job.offer["claim"] or job.state != "running":
            return refusal(409, "StaleClaim")
        return Answer(200, {"token": self.task_token or "a-new-token"})

    def execute(self, call: Call, rest: str) -> Answer:
        """The Execution API, as far as a simple task needs it."""
        if match := re.fullmatch(r"task-instances/([^/]+)/run", rest):
            job = self.jobs[match[1]]
            now = datetime.now(UTC).isoformat()
            run = {
                "dag_id": job.offer["dag_id"],
                "run_id": job.offer["run_id"],
                "logical_date": now,
                "data_interval_start": now,
                "data_interval_end": now,
                "run_after": now,
                "start_date": now,
                "end_date": None,
                "run_type": "manual",
                "state": "running",
                "conf": {},
                "consumed_asset_events": [],
                "partition_key": None,
            }
            context = {"dag_run": run, "max_tries": 0, "task_reschedule_count": 0, "should_retry": False}
            return Answer(200, context, JSON)
        if rest.endswith("/state") and any(
            earlier.path == call.path and earlier.json["state"] == call.json["state"]
            for earlier in self.executions[:-1]
        ):
            # As Airflow answers what it was told before: no body, and no type of one.
            return Answer(200, raw=b"")
        return Answer(204)


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    central: FakeCentral

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.central.changed:
            self.central.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Cut connections are what the tests are about."""


class FakeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    central: FakeCentral

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {key.lower(): value for key, value in self.headers.items()}
        body = self.rfile.read(length)
        call = Call(self.command, self.path, headers, body, self.client_address, time.monotonic())
        if self.path == CHANNEL_PATH:
            self.upgrade(call)
            return
        with self.central.changed:
            answer = CUT if self.central.down else self.central.answer(call)
            self.central.calls.append(call)
            self.central.changed.notify_all()
        self.reply(answer)

    def upgrade(self, call: Call) -> None:
        """Become a channel, unless it is refused."""
        central = self.central
        with central.changed:
            central.upgrades.append(call)
            central.changed.notify_all()
            if central.down:
                answer: Any = CUT
            elif call.headers.get("authorization") != f"Bearer {central.token}":
                answer = refusal(403, "Forbidden")
            else:
                answer = central.refuse_upgrade(call)
        self.close_connection = True
        if answer is not None:
            self.reply(answer)
        else:
            FakeChannel(central, self).serve()

    def reply(self, answer: Any) -> None:
        if answer is CUT:
            self.close_connection = True
            self.connection.close()
            return
        content = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
        if answer.status == 204:
            content = b""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_HEAD = do_DELETE = handle_any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""
