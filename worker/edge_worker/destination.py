"""Where the site's telemetry goes, signal by signal: the gateway of the Edge API, or a collector of the site's own."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.exceptions import InvalidHeader
from urllib3.connection import HTTPConnection

from edge_otel.telemetry import variables
from edge_otel.telemetry.redaction import without_user_info
from edge_otel.wire import WORKER_HEADER
from edge_worker import access
from edge_worker.faults import BadSetting
from edge_worker.otlp import CONTENT_TYPE, SIGNALS, Signal
from edge_worker.plan import read_retry_after
from edge_worker.polling import CONNECT_TIMEOUT, TokenFile, connections
from edge_worker.settings import Settings

READ_TIMEOUT = 40.0
"""Seconds; longer than the gateway waits for its collector (30 s), else what that took late would be sent twice."""

SLACK = 20.0
"""Seconds that a whole request may take beyond its timeout, which is one for each read only."""

_PREFIX = "OTEL_EXPORTER_OTLP_"

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name, as of https://www.rfc-editor.org/rfc/rfc9110#name-tokens"""


@dataclass(frozen=True)
class Response:
    """What became of a request; status None is no answer at all. ``retry_after`` is in seconds."""

    status: int | None
    detail: str
    retry_after: float | None = None


class Destination(Protocol):
    """The far end for one signal."""

    @property
    def central(self) -> bool:
        """Whether the central side tells if it wants telemetry."""

    def send(self, body: bytes) -> Response:
        """Send a request, gzipped; blocks, never raises."""


class Gateway:
    """The Edge API."""

    central = True

    def __init__(self, settings: Settings, token: TokenFile, signal: Signal) -> None:
        self._url = f"{settings.server.rstrip('/')}/v2/otlp/v1/{signal}"
        self._headers = {WORKER_HEADER: settings.name}
        self._token = token
        self._line = Line(connections(settings))
        self._verify: str | bool = access.authorities(settings) or True

    def send(self, body: bytes) -> Response:
        """Send a request; once more where the token file holds a new token."""
        used = self._token.authorization
        answer = self._post(body)
        # Others may have read the new one meanwhile.
        if answer.status in (401, 403) and (self._token.refresh() or self._token.authorization != used):
            answer = self._post(body)
        return answer

    def _post(self, body: bytes) -> Response:
        return post(self._line, self._url, body, self._headers, self._token, self._verify, READ_TIMEOUT, CONTENT_TYPE)


class Collector:
    """An OTLP/HTTP endpoint as the standard variables describe it. The worker's token never goes there."""

    central = False

    def __init__(self, url: str, signal: Signal, environment: Mapping[str, str]) -> None:
        def named(name: str) -> str | None:
            return environment.get(f"{_PREFIX}{signal.upper()}_{name}") or environment.get(_PREFIX + name) or None

        self._url = url
        self._headers = _headers(named("HEADERS") or "")
        self._timeout = _timeout(named("TIMEOUT"))
        self._verify: str | bool = _readable("CERTIFICATE", named("CERTIFICATE")) or True
        session = requests.Session()
        certificate = _readable("CLIENT_CERTIFICATE", named("CLIENT_CERTIFICATE"))
        key = _readable("CLIENT_KEY", named("CLIENT_KEY"))
        if certificate:
            session.cert = (certificate, key) if key else certificate
        self._line = Line(session)

    def send(self, body: bytes) -> Response:
        """Send a request."""
        return post(self._line, self._url, body, self._headers, _NoAuth(), self._verify, self._timeout)


class Line(HTTPAdapter):
    """The only connection of a session, which can be cut: a far end that sends a byte now and then would hold it."""

    def __init__(self, session: requests.Session) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self.session = session
        session.mount("https://", self)
        session.mount("http://", self)
        self._connection: HTTPConnection | None = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool for a request, of which each new connection is known here."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        kind = type(pool).ConnectionCls

        def connect(**options: Any) -> Any:
            self._connection = kind(**options)
            return self._connection

        pool.ConnectionCls = connect
        return pool

    def cut(self) -> None:
        """End whatever waits for the far end, from another thread."""
        if self._connection is not None and self._connection.sock is not None:
            with contextlib.suppress(OSError, ValueError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)


class _NoAuth(AuthBase):
    """Keeps requests from looking for a password in ``.netrc``."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def destinations(settings: Settings, token: TokenFile, environment: Mapping[str, str]) -> dict[Signal, Destination]:
    """Return where each signal goes; raises BadSetting where a variable names what cannot be used."""
    found: dict[Signal, Destination] = {}
    for signal in SIGNALS:
        url = _endpoint(signal, environment)
        found[signal] = Collector(url, signal, environment) if url else Gateway(settings, token, signal)
    return found


def post(
    line: Line,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    auth: AuthBase,
    verify: str | bool,
    timeout: float,
    kind: str | None = None,
) -> Response:
    """Send a gzipped OTLP request. ``kind`` is the content type of the far end's own answer, where it has but one."""
    what = without_user_info(f"POST {url}")
    timer = threading.Timer(CONNECT_TIMEOUT + timeout + SLACK, line.cut)
    timer.daemon = True
    timer.start()
    try:
        answer = line.session.post(
            url,
            data=body,
            headers={**headers, "Content-Type": CONTENT_TYPE, "Content-Encoding": "gzip"},
            auth=auth,
            verify=verify,
            timeout=(CONNECT_TIMEOUT, timeout),
            allow_redirects=False,
        )
    except InvalidHeader:
        # Its text is the header.
        return Response(None, f"{what}: a header cannot be sent")
    except (requests.RequestException, OSError, ValueError) as error:
        return Response(None, f"{what}: {type(error).__name__}: {without_user_info(str(error))}")
    finally:
        timer.cancel()
    detail = f"{what} was answered {answer.status_code} {answer.reason}"
    found = answer.headers.get("Content-Type")
    if answer.ok and kind is not None and found != kind:
        # A login page, say.
        return Response(None, f"{detail} with {found}, which is no answer to telemetry")
    return Response(answer.status_code, detail, read_retry_after(answer.headers.get("Retry-After")))


def _endpoint(signal: Signal, environment: Mapping[str, str]) -> str | None:
    """Return the URL for a signal that the variables name; None where there is none."""
    name, whole = f"{_PREFIX}{signal.upper()}_ENDPOINT", True
    if not environment.get(name):
        name, whole = f"{_PREFIX}ENDPOINT", False
    url = environment.get(name, "").strip()
    if not url:
        return None
    for protocol in (f"{_PREFIX}{signal.upper()}_PROTOCOL", f"{_PREFIX}PROTOCOL"):
        if said := environment.get(protocol):
            if said != "http/protobuf":
                raise BadSetting(f"{protocol} is {said}: the worker speaks only http/protobuf, usually at port 4318")
            break
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise BadSetting(f"{name} is not a full URL such as http://127.0.0.1:4318")
    return url if whole else f"{url.rstrip('/')}/v1/{signal}"


def _headers(text: str) -> dict[str, str]:
    found = variables.headers(text)
    for name, value in found.items():
        if not _HEADER.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise BadSetting(f"{_PREFIX}HEADERS holds what cannot be sent as a header")
    return found


def _timeout(text: str | None) -> float:
    """Return seconds, as the Python SDK reads them."""
    try:
        found = float(text or READ_TIMEOUT)
    except ValueError:
        found = 0.0
    if not 0 < found < 86400:
        raise BadSetting(f"{_PREFIX}TIMEOUT is not a number of seconds above 0")
    return found


def _readable(name: str, path: str | None) -> str | None:
    if path is not None:
        try:
            with open(path, "rb"):  # noqa: PTH123 - the variable is a string, and requests wants one
                pass
        except OSError as error:
            raise BadSetting(f"{_PREFIX}{name}: cannot read {path}: {error.strerror}") from None
    return path
