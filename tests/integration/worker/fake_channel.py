"""The far end of one channel: messages become the calls that they stand for, so that both transports share one fake."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

if TYPE_CHECKING:
    from fake_server import Answer, Call, FakeCentral, FakeHandler

PATH = "/edge_worker/v2/channel"


class FakeChannel:
    """One connection, served by the thread of its request."""

    def __init__(self, central: FakeCentral, handler: FakeHandler) -> None:
        self.central = central
        self.headers = {key.lower(): value for key, value in handler.headers.items()}
        self.peer = handler.client_address
        self.socket = handler.connection
        self.protocol = ServerProtocol(max_size=2**24)
        self.name = ""
        self.hello: dict[str, Any] | None = None
        self.offered: dict[str, int] = {}
        self.heard = 0
        self.open = True
        self.closed = False
        raw = "".join(f"{key}: {value}\r\n" for key, value in handler.headers.items())
        self.protocol.receive_data(f"{handler.requestline}\r\n{raw}\r\n".encode())
        (request,) = self.protocol.events_received()
        assert isinstance(request, Request)
        self.protocol.send_response(self.protocol.accept(request))

    def serve(self) -> None:
        """Run in the handler's thread until the connection ends."""
        try:
            self.flush()
            while self.protocol.state is not State.CLOSED:
                data = self.socket.recv(65536)
                with self.central.changed:
                    if data:
                        self.protocol.receive_data(data)
                    else:
                        self.protocol.receive_eof()
                    for frame in self.protocol.events_received():
                        if isinstance(frame, Frame) and frame.opcode is Opcode.TEXT:
                            self.heed(json.loads(frame.data))
                    self.flush()
                    self.central.changed.notify_all()
                if not data:
                    return
        except OSError:
            pass
        finally:
            with self.central.changed:
                self.open = False
                self.central.unplug(self)
                self.central.changed.notify_all()

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.socket.sendall(data)
            else:
                self.socket.shutdown(socket.SHUT_WR)

    def send(self, **message: Any) -> None:
        """Send a message; the caller holds the central's lock, or is a test."""
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        with self.central.changed:
            self.protocol.send_text(text.encode())
            self.flush()

    def close(self, code: int, reason: str = "") -> None:
        with self.central.changed:
            self.closed = True
            self.protocol.send_close(code, reason)
            self.flush()

    def cut(self) -> None:
        with self.central.changed:
            self.open = False
            # The other end may be gone already.
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def refuse(self, answer: Answer) -> None:
        self.send(type="error", **answer.body)
        self.close(4000 + answer.status)

    def call(self, message: dict[str, Any]) -> Call:
        """Return the v1 call that a message stands for."""
        from fake_server import Call

        kind = message["type"]
        if kind in ("hello", "heartbeat"):
            self.name = message.get("name", self.name)
            method, path = "POST" if kind == "hello" else "PATCH", f"v1/worker/{self.name}"
        else:
            state = {"accept": "running", "decline": "queued"}.get(kind) or message["state"]
            offer = self.central.jobs[message["id"]].offer if message["id"] in self.central.jobs else {}
            key = [offer.get(k) for k in ("dag_id", "task_id", "run_id", "try_number", "map_index")]
            method, path = "PATCH", "v1/jobs/state/" + "/".join(quote(str(part), safe="") for part in (*key, state))
            message = {**message, "task_instance_id": message["id"]}
        headers = {**self.headers, "x-channel": kind, "traceparent": message.get("traceparent", "")}
        return Call(method, f"/edge_worker/{path}", headers, json.dumps(message).encode(), self.peer, time.monotonic())

    def heed(self, message: dict[str, Any]) -> None:
        from fake_server import CUT, Answer

        central = self.central
        self.heard += 1
        call = self.call(message)
        central.calls.append(call)
        answer = CUT if central.down else central.answer(call)
        if answer is CUT or (
            isinstance(answer, Answer) and answer.status >= 300 and "error" not in (answer.body or {})
        ):
            self.cut()
            return
        kind = message["type"]
        if kind in ("hello", "heartbeat"):
            if answer.status != 200:
                self.refuse(answer)
                return
            if kind == "hello":
                self.hello = message
                central.plug(self)
                self.send(type="welcome", protocol=1, **answer.body)
            else:
                self.send(type="heartbeat_ack", seq=message["seq"], **answer.body)
            central.push()
            return
        self.offered.pop(message["id"], None)
        about = {"id": message["id"], "claim": message["claim"]}
        if kind == "decline":
            central.push()
        elif answer.status in (404, 409):
            self.send(type="stale", **about)
        elif answer.status != 200:
            self.send(type="error", **answer.body)
        else:
            self.send(type="confirmed" if kind == "accept" else "state_ack", **about)
