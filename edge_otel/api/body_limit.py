"""Refuses bodies over a limit before they are in memory."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_otel.api.refusals import respond
from edge_otel.errors import TooLarge

MAX_BODY = 1024 * 1024
MAX_LOG_BODY = 16 * 1024 * 1024
"""Bytes as they arrive, before decompression; logs may be larger than the rest."""


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
        limit = MAX_LOG_BODY if path.endswith("/log") or "/logs/push/" in path else MAX_BODY
        refusal = TooLarge(f"The body is larger than {limit} bytes. Send smaller pieces.")
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
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
