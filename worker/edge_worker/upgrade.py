"""From the server's URL to an open WebSocket, and what it means where there is none."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidMessage,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    WebSocketException,
)
from websockets.http11 import Response

from edge_otel import __version__
from edge_otel.telemetry import context
from edge_otel.wire import ErrorBody
from edge_worker import access
from edge_worker.faults import NoChannel, NotAllowed, Unreachable
from edge_worker.plan import Answer, read_retry_after, read_upgrade
from edge_worker.polling import TokenFile
from edge_worker.settings import Settings

OPEN_WITHIN, CLOSE_WITHIN = 10.0, 2.0
"""Seconds."""

PING_INTERVAL, PONG_WITHIN = 10.0, 10.0
"""Seconds; a dead peer is found within both."""

MAX_OFFER = 16 * 1024 * 1024
"""Bytes of one message from the server."""


class _Connect(connect):
    """Follows no redirect: the token is for the URL that was configured."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def dial(settings: Settings, token: TokenFile) -> ClientConnection:
    """Return an open WebSocket. Raises NotAllowed, or Unreachable: as NoChannel where trying again will not help."""
    url = f"ws{settings.server.removeprefix('http').rstrip('/')}/v2/channel"
    try:
        proxy = access.proxy(settings)
        certificates: dict[str, Any] = {}
        if url.startswith("wss:"):
            certificates["ssl"] = await asyncio.to_thread(access.tls, settings)
        if proxy and proxy.startswith("https:"):
            certificates["proxy_ssl"] = await asyncio.to_thread(access.tls, settings)
        return await _Connect(
            url,
            proxy=proxy,
            additional_headers={"Authorization": token.authorization, **context.new_root()},
            user_agent_header=f"edge-worker/{__version__}",
            compression=None,
            max_size=MAX_OFFER,
            open_timeout=OPEN_WITHIN,
            close_timeout=CLOSE_WITHIN,
            ping_interval=PING_INTERVAL,
            ping_timeout=PONG_WITHIN,
            **certificates,
        )
    except InvalidStatus as answer:
        raise _refusal(url, answer.response) from None
    except InvalidProxyStatus as answer:
        raise NoChannel(f"{url}: the proxy answered CONNECT with {answer.response.status_code}") from None
    except InvalidProxy:
        # The text of this one shows the proxy's URL, which may hold a password.
        raise NoChannel(f"{url}: the proxy's URL is not usable for a WebSocket") from None
    except (OSError, TimeoutError) as error:
        raise Unreachable(f"{url}: {type(error).__name__}: {error}") from None
    except (WebSocketException, ImportError, ValueError) as error:
        text = f"{url}: {type(error).__name__}: {error}"
        cut = isinstance(error, InvalidMessage | InvalidProxyMessage) and isinstance(error.__cause__, EOFError)
        raise (Unreachable if cut else NoChannel)(text) from None


def _refusal(url: str, answer: Response) -> NotAllowed | Unreachable:
    try:
        body = ErrorBody.model_validate_json(answer.body or b"")
    except ValidationError:
        body = None
    meaning = read_upgrade(answer.status_code, body.error if body else None)
    if meaning is Answer.NOT_ALLOWED and body is not None:
        return NotAllowed(answer.status_code, body.error, body.detail, body.error_id)
    detail = body.detail if body else f"{url} was answered {answer.status_code} {answer.reason_phrase}"
    if meaning is Answer.LATER:
        return Unreachable(detail, read_retry_after(answer.headers.get("Retry-After")))
    if location := answer.headers.get("Location"):
        detail += f", a redirect to {location}: set --server to the final URL"
    return NoChannel(detail)
