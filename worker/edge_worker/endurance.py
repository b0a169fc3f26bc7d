"""Has Airflow's supervisor outlast an outage of the Execution API, however long; run by the task interpreter.

Left alone it blocks in a row of attempts while the task's output waits, ends the task after some failed heartbeats,
gives a task's end up after two rows, and never gets over a token that has expired meanwhile. Here a heartbeat is one
attempt, everything else is repeated until it is answered, and the supervisor goes on reading what the task prints. What
ends a task is the server's word, or the daemon.

It knows the inside of Airflow's supervisor. One that is built otherwise is left as it is.
"""

from __future__ import annotations

import contextlib
import contextvars
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

WANTED, TOKEN = "token.wanted", "token"
"""Files of a job's folder: the mark that asks the daemon for a new token, and the daemon's answer."""

HEARTBEAT_WITHIN = 5.0
"""Seconds for each step of a heartbeat."""

PAUSE_LAST, TOKEN_WITHIN, LOOK = 15.0, 20.0, 0.25
"""Seconds: of the longest pause between attempts, for the daemon to bring a token, and between looks for it."""

SAY_AFTER, SAY_EVERY = 30.0, 600.0
"""Seconds of an outage until the task's log tells of it, and until it does again."""

METHODS = (
    "_on_child_started",
    "_handle_heartbeat_failures",
    "_send_heartbeat_if_needed",
    "_send_terminal_state_msg",
    "_service_subprocess",
)
FIELDS = {
    "selector",
    "failed_heartbeats",
    "_open_sockets",
    "_exit_code",
    "_last_successful_heartbeat",
    "_task_end_time_monotonic",
}


class Meaning(Enum):
    """What a failed call to the Execution API means."""

    AGAIN = "again"
    EXPIRED = "expired"
    WORD = "word"
    """The server has decided."""


def read_failure(status: int | None, said: str | None, final: bool) -> Meaning:
    """Return what a failure means. ``status`` is None where there was no answer, ``said`` is None where the answer was
    not the Execution API's but, say, a proxy's; ``final`` calls tell how a task ended."""
    if status is None or said is None or status in (408, 425, 429) or not 400 <= status < 500:
        return Meaning.AGAIN
    if status == 401 or (status == 403 and "Invalid auth token" in said):
        return Meaning.EXPIRED
    # It may be a variable that this task must not read; that a task has ended is never forbidden for good.
    return Meaning.AGAIN if status == 403 and final else Meaning.WORD


def is_answer(status: int, kind: str, empty: bool, final: bool) -> bool:
    """Return whether a success is the Execution API's, and not, say, a login page; ``kind`` is its content type."""
    kind = kind.partition(";")[0].strip().lower()
    # What it was told before it takes with 200, no body, and no type of one.
    return status == 204 or kind == "application/json" or (final and empty and not kind)


class Endurance:
    """One job's calls to the Execution API."""

    def __init__(self, folder: Path, renews: bool, attempts: int, once: Callable[..., Any]) -> None:
        """``renews``: the daemon can get new tokens; ``attempts`` at what the server answers with 500 while it takes
        heartbeats; ``once`` makes a call."""
        self._folder = folder
        self._renews = renews
        self._attempts = attempts
        self._once = once
        self.process: Any = None
        """Airflow's supervisor, from when the task's process exists."""
        self._trouble: float | None = None
        """When the calls began to fail; None while they do not."""
        self._said = 0.0
        self._beaten = 0.0
        """When a heartbeat was last answered."""

    def request(self, client: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a call, in place of the client's own method."""
        path = str(args[1]) if len(args) > 1 else ""
        if path.endswith("/heartbeat"):
            return self._beat(client, args, kwargs)
        final = path.endswith("/state") and path.startswith("task-instances/")
        failures = broken = 0
        while True:
            try:
                return self._attempt(client, args, kwargs, final)
            except Exception as failure:
                begun = time.monotonic()
                status, meaning = self._read(failure, final)
                if meaning is Meaning.WORD or (not final and self._ended):
                    raise
                failures += 1
                self._pause(client, failures, meaning)
                # An error of this one call, by a server that is well otherwise.
                broken += status == 500 and self._beaten > begun
                if broken >= self._attempts and not final:
                    raise

    def fail_heartbeat(self, process: Any, failure: Exception) -> bool:
        """Return whether a failed heartbeat is no reason to count."""
        if self._read(failure, False)[1] is Meaning.WORD:
            return False
        # Else the supervisor would not wait between looks any more once this is long ago.
        process._last_successful_heartbeat = time.monotonic()
        return True

    def _beat(self, client: Any, args: Any, kwargs: Any) -> Any:
        kwargs["timeout"] = HEARTBEAT_WITHIN
        try:
            answer = self._attempt(client, args, kwargs)
        except Exception as failure:
            if self._read(failure, False)[1] is not Meaning.EXPIRED or not self._renew(client):
                raise
            answer = self._attempt(client, args, kwargs)
        self._beaten = time.monotonic()
        return answer

    def _read(self, failure: Exception, final: bool) -> tuple[int | None, Meaning]:
        import httpx
        from airflow.sdk.api.client import ServerResponseError

        if isinstance(failure, httpx.HTTPStatusError):
            status = failure.response.status_code
            said = f"{failure} {failure.detail}" if isinstance(failure, ServerResponseError) else None
            meaning = read_failure(status, said, final)
        elif isinstance(failure, httpx.RequestError):
            status, meaning = None, Meaning.AGAIN
        else:
            return None, Meaning.WORD
        return status, Meaning.WORD if meaning is Meaning.EXPIRED and not self._renews else meaning

    @property
    def _ended(self) -> bool:
        return self.process is not None and self.process._exit_code is not None

    def _attempt(self, client: Any, args: Any, kwargs: Any, final: bool = False) -> Any:
        try:
            if self._trouble is None or self._selector is None:
                answer = self._call(client, args, kwargs, final)
            else:
                answer = self._aside(lambda: self._call(client, args, kwargs, final))
        except Exception as failure:
            if self._read(failure, True)[1] is Meaning.WORD:
                self._trouble = None
            else:
                self._complain(failure)
            raise
        if self._trouble is not None and self._said >= self._trouble:
            self._say(f"The Execution API answers again, after {time.monotonic() - self._trouble:.0f} s.")
        self._trouble = None
        return answer

    def _call(self, client: Any, args: Any, kwargs: Any, final: bool) -> Any:
        """Make a call once; what is answered in the Execution API's place raises like no answer."""
        answer = self._once(client, *args, **kwargs)
        kind = answer.headers.get("content-type", "")
        if not is_answer(answer.status_code, kind, empty=not answer.content, final=final):
            import httpx

            what = f"{answer.status_code} with {kind or 'no content type'} is not its answer"
            raise httpx.RemoteProtocolError(what, request=answer.request)
        return answer

    def _aside(self, call: Callable[[], Any]) -> Any:
        """Make a call in a thread, for it may hang, even in finding the server's address."""
        done: list[Any] = []
        context = contextvars.copy_context()

        def work() -> None:
            try:
                done.append((context.run(call), None))
            except Exception as failure:  # noqa: BLE001 - raised below
                done.append((None, failure))

        thread = threading.Thread(target=work, name="execution-api", daemon=True)
        thread.start()
        while thread.is_alive() and self._selector is not None:
            self._serve(0.1)
        thread.join()
        answer, failure = done[0]
        if failure is not None:
            raise failure
        return answer

    def _pause(self, client: Any, failures: int, meaning: Meaning) -> None:
        wait = min(PAUSE_LAST, 2.0 ** min(failures, 10) / 2) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        until = time.monotonic() + (TOKEN_WITHIN if meaning is Meaning.EXPIRED else wait)
        while (left := until - time.monotonic()) > 0 and not (meaning is Meaning.EXPIRED and self._renew(client)):
            self._serve(min(left, LOOK))
            if meaning is Meaning.AGAIN and self._selector is not None and not self._ended:
                with self._deaf():
                    self.process._send_heartbeat_if_needed()

    @property
    def _selector(self) -> Any:
        """The supervisor's, while it has one that is open."""
        selector = self.process.selector if self.process is not None else None
        return selector if selector is not None and selector.get_map() is not None else None

    def _serve(self, seconds: float) -> None:
        """Read what the task prints, and notice its end, for some seconds at most."""
        if self._selector is None:
            time.sleep(seconds)
            return
        with self._deaf():
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0 and self._selector is not None:
                self.process._service_subprocess(max_wait_time=left)

    @contextlib.contextmanager
    def _deaf(self) -> Iterator[None]:
        """Leave the task's next request where it is: the one before may be what is being answered here."""
        process = self.process
        keys = process.selector.get_map().values()
        for_later = [key for key in keys if process._open_sockets.get(key.fileobj) == "requests"]
        for key in for_later:
            process.selector.unregister(key.fileobj)
        try:
            yield
        finally:
            if self._selector is not None:
                for key in for_later:
                    if key.fileobj in process._open_sockets:
                        process.selector.register(key.fileobj, key.events, key.data)

    def _renew(self, client: Any) -> bool:
        """Take the token that the daemon has brought, or ask for one; return whether there is a new one."""
        if not self._renews:
            return False
        from airflow.sdk.api.client import BearerAuth

        given = self._folder / TOKEN
        try:
            token = given.read_text().strip()
            given.unlink()
        except OSError:
            with contextlib.suppress(OSError):
                (self._folder / WANTED).touch(0o600)
            return False
        client.auth = BearerAuth(token)
        return True

    def _complain(self, failure: Exception) -> None:
        now = time.monotonic()
        if self._trouble is None:
            self._trouble = now
        if now - self._trouble >= SAY_AFTER and (self._said < self._trouble or now - self._said >= SAY_EVERY):
            self._said = now
            why = f"{type(failure).__name__}: {failure}".splitlines()[0]
            self._say(f"The Execution API cannot be used for {now - self._trouble:.0f} s ({why}). The task goes on.")

    def _say(self, text: str) -> None:
        log = getattr(self.process, "process_log", None)
        if log is not None:
            log.warning(text, logger="edge.worker")
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - becomes the job's output


def install(folder: Path, renews: bool) -> bool:
    """Have this process's supervisor endure; return whether it is built as is known here."""
    from airflow.sdk.api import client
    from airflow.sdk.execution_time.supervisor import ActivitySubprocess as Supervisor

    once = getattr(client.Client.request, "__wrapped__", None)
    known = {field.name for field in getattr(Supervisor, "__attrs_attrs__", ())}
    if once is None or not all(hasattr(Supervisor, name) for name in METHODS) or not known >= FIELDS:
        return False
    endurance = Endurance(folder, renews, client.API_RETRIES, once)
    started, counted, ended = (
        Supervisor._on_child_started,
        Supervisor._handle_heartbeat_failures,
        Supervisor._send_terminal_state_msg,
    )

    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        return endurance.request(self, *args, **kwargs)

    def _on_child_started(self: Any, *args: Any, **kwargs: Any) -> Any:
        endurance.process = self
        return started(self, *args, **kwargs)

    def _handle_heartbeat_failures(self: Any, exc: Exception) -> None:
        if not endurance.fail_heartbeat(self, exc):
            counted(self, exc)

    def _send_terminal_state_msg(self: Any, msg: Any) -> None:
        ended(self, msg)
        if self._task_end_time_monotonic is not None:
            # The task's overtime begins when its end is told, else telling it for long would be its end.
            self._task_end_time_monotonic = time.monotonic()

    client.Client.request = request
    Supervisor._on_child_started = _on_child_started
    Supervisor._handle_heartbeat_failures = _handle_heartbeat_failures
    Supervisor._send_terminal_state_msg = _send_terminal_state_msg
    return True
