"""Refuses bodies over a limit before they are in memory."""

from __future__ import annotations

import zlib

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_otel.api.refusals import respond
from edge_otel.errors import BadInput, TooLarge

MAX_BODY = 1024 * 1024
MAX_LOG_BODY = 16 * 1024 * 1024
MAX_OTLP_BODY = 4 * 1024 * 1024
"""Bytes as they arrive, before decompression; logs and telemetry may be larger than the rest."""


class BodyLimit:
    """ASGI middleware that answers 413 by the declared length, or as soon as more has come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = request.url.path
        limit = _limit(path)
        refusal = TooLarge(f"The body is larger than {limit} bytes. Send smaller pieces.")
        declared = request.headers.get("content-length", "0")
        # The gateway asks for the credential first, and counts what it refuses.
        if not declared.isdecimal() or (int(declared) > limit and limit != MAX_OTLP_BODY):
            await respond(refusal, request)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise refusal
            return message

        await self._app(scope, counted, send)


def _limit(path: str) -> int:
    if "/v2/otlp/" in path:
        return MAX_OTLP_BODY
    return MAX_LOG_BODY if path.endswith("/log") or "/logs/push/" in path else MAX_BODY


def decompressed(body: bytes, limit: int) -> bytes:
    """Return what is in one gzip stream. Raises BadInput where it is none, and TooLarge beyond ``limit`` bytes."""
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        data = inflate.decompress(body, limit)
    except zlib.error as error:
        raise BadInput(f"The body is not gzip: {error}.") from None
    if inflate.unconsumed_tail:
        raise TooLarge(f"The body holds more than {limit} bytes. Send smaller pieces.")
    if not inflate.eof or inflate.unused_data:
        raise BadInput("The body is not one whole gzip stream.")
    return data
