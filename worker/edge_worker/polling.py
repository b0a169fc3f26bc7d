"""v1 over HTTPS: the transport that works through every proxy. One pool of kept-alive connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import DefaultCookiePolicy
from typing import TypeVar
from urllib.parse import quote

import requests
from pydantic import BaseModel, RootModel, ValidationError
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from edge_otel.telemetry import context
from edge_otel.telemetry.context import Carrier
from edge_otel.telemetry.redaction import without_user_info
from edge_otel.wire import (
    CLAIM_HEADER,
    ERROR_HEADER,
    ErrorBody,
    FetchRequest,
    JobOffer,
    JobReport,
    TaskToken,
    WorkerReply,
    WorkerReport,
)
from edge_worker import access
from edge_worker.faults import REFUSALS, Refused, Rewind, Unreachable
from edge_worker.journal import Ticket
from edge_worker.plan import Answer, read_answer, read_retry_after
from edge_worker.settings import Settings
from edge_worker.shipping import Piece

CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 20.0
"""Seconds. A dead link is noticed by these; nothing but the call itself waits for them."""

THREADS = {"worker": 1, "jobs": 3, "logs": 2}
"""Calls of one kind never wait for calls of another kind."""

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")


class Null(RootModel[None]):
    """The answer to what is only told. A page of the network is none."""


class TokenFile(AuthBase):
    """The bearer token, kept in memory and read again when the server refuses it.

    Being an ``auth`` object it also keeps requests from replacing the token by an entry of ``.netrc``.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.token_file
        self._token = ""
        self.refresh()

    def refresh(self) -> bool:
        """Read the file; return whether it holds a new token. A file that can not be read changes nothing."""
        try:
            token = self._path.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return False
        changed = bool(token) and token.isascii() and token.isprintable() and token != self._token
        if changed:
            self._token = token
        return changed

    @property
    def authorization(self) -> str:
        """The header's value."""
        return f"Bearer {self._token}"

    def __bool__(self) -> bool:
        return bool(self._token)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self.authorization
        return request


def connections(settings: Settings) -> requests.Session:
    """Return a pool of connections to the central site."""
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = HTTPAdapter(pool_connections=4, pool_maxsize=sum(THREADS.values()))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    if settings.proxy:
        # requests prefers the environment's proxies over the session's unless it is told to ignore it.
        session.trust_env = False
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    if settings.client_cert and settings.client_key:
        session.cert = (str(settings.client_cert), str(settings.client_key))
    return session


class Polling:
    """The Edge API by v1 calls, for the loop and the log shipper. Every method raises Fault."""

    def __init__(self, settings: Settings, token: TokenFile) -> None:
        self._settings = settings
        self._token = token
        self._base = settings.server.rstrip("/")
        self._session = connections(settings)
        self._verify: str | bool = access.authorities(settings) or True
        self._threads = {
            kind: ThreadPoolExecutor(count, thread_name_prefix=f"http-{kind}") for kind, count in THREADS.items()
        }

    async def register(self, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        """Announce this daemon."""
        return await self._in("worker", lambda: self._worker("POST", report, carrier))

    async def beat(self, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        """Send a heartbeat."""
        return await self._in("worker", lambda: self._worker("PATCH", report, carrier))

    async def fetch(self, request: FetchRequest) -> JobOffer | None:
        """Return an offer, or None when there is no job for this worker."""

        def call() -> JobOffer | None:
            answer = self._call("POST", f"v1/jobs/fetch/{quote(self._settings.name, safe='')}", body=request)
            if answer.content.strip() in (b"null", b""):
                return None
            return _decode(JobOffer, answer)

        return await self._in("jobs", call)

    async def report(self, ticket: Ticket, state: str, report: JobReport) -> None:
        """Tell a job's state: ``running`` accepts the offer, ``queued`` declines it."""
        key = (ticket.dag_id, ticket.task_id, ticket.run_id, ticket.try_number, ticket.map_index, state)
        path = "v1/jobs/state/" + "/".join(quote(str(part), safe="") for part in key)

        def call() -> None:
            _decode(Null, self._call("PATCH", path, body=report, carrier=ticket.span or None))

        await self._in("jobs", call)

    async def append_log(self, ticket: Ticket, piece: Piece) -> tuple[int, int]:
        """Send log bytes; return the server's cursor and the HTTP status. Raises Rewind on a gap, and Refused with 413
        also where it is a proxy on the way that takes no such body."""

        def call() -> tuple[int, int]:
            headers = {
                CLAIM_HEADER: str(ticket.claim),
                "Content-Range": f"bytes {piece.start}-{piece.end - 1}/*",
                "Content-Type": "application/octet-stream",
                **({"Content-Encoding": "gzip"} if piece.packed else {}),
            }
            path = f"v2/jobs/{ticket.id}/log"
            try:
                answer = self._call("PATCH", path, data=piece.body, headers=headers, carrier=ticket.span or None)
            except Unreachable as fault:
                if fault.status == 413:
                    raise Refused(413, "", str(fault)) from None
                raise
            return _cursor(answer), answer.status_code

        return await self._in("logs", call)

    async def log_cursor(self, ticket: Ticket) -> int:
        """Return how many bytes of the job's log the server has."""

        def call() -> int:
            headers = {CLAIM_HEADER: str(ticket.claim)}
            path = f"v2/jobs/{ticket.id}/log"
            answer = self._call("HEAD", path, headers=headers, carrier=ticket.span or None)
            if "Range" not in answer.headers and (kind := answer.headers.get("Content-Type")):
                # The Edge API's answer has no body. Its Range is empty where nothing is stored, and may be lost then.
                raise Unreachable(f"the answer to HEAD {path} is not a cursor, but {kind}", status=answer.status_code)
            return _cursor(answer)

        return await self._in("logs", call)

    async def renew_token(self, ticket: Ticket) -> str:
        """Return a new token for the Execution API, for a task that runs here."""

        def call() -> str:
            headers = {CLAIM_HEADER: str(ticket.claim)}
            path = f"v2/jobs/{ticket.id}/token"
            return _decode(TaskToken, self._call("POST", path, headers=headers, carrier=ticket.span or None)).token

        return await self._in("jobs", call)

    def close(self) -> None:
        """Take no more calls and drop idle connections; a call under way ends by its own timeouts."""
        for pool in self._threads.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def _in(self, kind: str, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads[kind], call)

    def _worker(self, method: str, report: WorkerReport, carrier: Carrier) -> WorkerReply:
        path = f"v1/worker/{quote(self._settings.name, safe='')}"
        return _decode(WorkerReply, self._call(method, path, body=report, carrier=carrier))

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        carrier: dict[str, str] | None = None,
    ) -> requests.Response:
        sent = {**(headers or {}), **(carrier or context.new_root())}
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = body.model_dump_json(exclude_none=True).encode()
        answer = self._send(method, path, data, sent)
        error = _error_body(answer)
        meaning = read_answer(answer.status_code, error.error if error else None)
        if meaning is Answer.NOT_ALLOWED and self._token.refresh():
            answer = self._send(method, path, data, sent)
            error = _error_body(answer)
            meaning = read_answer(answer.status_code, error.error if error else None)
        if meaning is Answer.GOOD:
            return answer
        if meaning is Answer.REWIND:
            raise Rewind(_cursor(answer))
        if meaning is Answer.LATER:
            detail = error.detail if error else f"{method} {path} was answered {answer.status_code} {answer.reason}"
            if location := answer.headers.get("Location"):
                detail += f", a redirect to {location}: set --server to the final URL"
            raise Unreachable(detail, read_retry_after(answer.headers.get("Retry-After")), answer.status_code)
        detail = error.detail if error else answer.reason or ""
        raise REFUSALS[meaning](
            answer.status_code, error.error if error else "", detail, error.error_id if error else ""
        )

    def _send(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> requests.Response:
        try:
            return self._session.request(
                method,
                f"{self._base}/{path}",
                data=data,
                headers=headers,
                auth=self._token,
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                # Passed with every call: an environment variable would win over the session's.
                verify=self._verify,
                allow_redirects=False,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            text = without_user_info(str(error))
            raise Unreachable(f"{method} {self._base}/{path}: {type(error).__name__}: {text}") from None


def _decode(model: type[M], answer: requests.Response) -> M:
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, item["loc"])) or "body" for item in error.errors()[:3])
        raise Unreachable(f"the answer to {answer.request.path_url} is not a {model.__name__}: {where}") from None


def _error_body(answer: requests.Response) -> ErrorBody | None:
    if answer.ok:
        return None
    try:
        return ErrorBody.model_validate_json(answer.content)
    except ValidationError:
        name = answer.headers.get(ERROR_HEADER)
        return ErrorBody(error=name, detail=answer.reason or "", error_id="") if name else None


def _cursor(answer: requests.Response) -> int:
    """Return the cursor of ``Range: bytes=0-(n-1)``; absent or empty is 0."""
    text = answer.headers.get("Range", "").strip()
    if not text:
        return 0
    last = text.removeprefix("bytes").lstrip("= ").partition("-")[2]
    if not last.isdigit():
        raise Unreachable(f"the server's Range header is not understood: {text[:60]!r}")
    return int(last) + 1
