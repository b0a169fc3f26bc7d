"""One shape for every error: name, text, and an id that finds the reason in the server's log."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection

from edge_otel.errors import BadInput, CollectorAway, EdgeError, Forbidden, LogGap, TooBusy
from edge_otel.models.database import DatabaseFailure, explain
from edge_otel.wire import ERROR_HEADER, ErrorBody

log = logging.getLogger(__name__)

RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody, "description": text}
    for code, text in {
        400: "The worker's version is refused",
        403: "The credential does not allow this",
        404: "No such worker or job",
        409: "The name or the claim is somebody else's",
        413: "Too large",
        416: "Bytes before the range are missing",
        422: "Malformed",
        503: "The database is not migrated, or not reachable",
    }.items()
}
"""Error answers, for the OpenAPI document."""

UI_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody, "description": text}
    for code, text in {
        401: "Not logged in to Airflow",
        403: "The user's role does not allow this, or the request came from another site",
        404: "No such worker or token",
        409: "The token has ended",
        413: "Too large",
        422: "Malformed",
        503: "The database is not migrated, or not reachable",
    }.items()
}
"""The same, of the fleet page."""


def respond(error: EdgeError, request: HTTPConnection) -> JSONResponse:
    """Return the answer to a refused request, and log it under its id."""
    answer = body(error, f"{request.scope.get('method', 'GET')} {request.url.path}")
    headers = {ERROR_HEADER: answer.error}
    if isinstance(error, LogGap):
        headers["Range"] = cursor_range(error.facts["cursor"])
    if "retry_after" in error.facts:
        headers["Retry-After"] = str(error.facts["retry_after"])
    return JSONResponse(answer.model_dump(exclude_none=True), error.status, headers)


def body(error: EdgeError, what: str) -> ErrorBody:
    """Return what the caller learns of an error, and log all of it under its id; ``what`` was refused."""
    error_id = uuid4().hex
    facts = {k: v for k, v in error.facts.items() if k != "errors"}
    level = logging.ERROR if error.status >= 500 and not isinstance(error, TooBusy) else logging.INFO
    if isinstance(error, CollectorAway):
        # Logged where it begins: a whole fleet asks again and again.
        level = logging.DEBUG
    log.log(level, "%s -> %s %s %s error_id=%s", what, error.status, error, facts, error_id)
    detail = f"Forbidden. The reason is in the server's log under error_id={error_id}."
    return ErrorBody(
        error=type(error).__name__,
        detail=detail if isinstance(error, Forbidden) else error.detail,
        error_id=error_id,
        errors=error.facts.get("errors"),
    )


def cursor_range(cursor: int) -> str:
    """Return the Range header that tells how many bytes are stored: empty for none."""
    return f"bytes=0-{cursor - 1}" if cursor else ""


def malformed(what: str, problems: Sequence[Mapping[str, Any]]) -> BadInput:
    """Return the error that says what pydantic found wrong with a request or a message."""
    # Neither input nor context: they may hold what must not be repeated, or what is no JSON.
    errors = [
        {
            "type": e["type"],
            "loc": [p if isinstance(p, int) else _plain(p) for p in e["loc"]],
            "msg": _plain(e["msg"].removeprefix("Value error, ")),
        }
        for e in problems[:20]
    ]
    where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors[:3])
    return BadInput(f"The {what} is malformed. {where}", errors=errors)


_MAX_QUOTED = 200
"""Characters of what the caller has sent that are said back: names of unknown fields, mostly."""


def _plain(text: str) -> str:
    """Return a text that fits into an answer and into one line of the log."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text[:_MAX_QUOTED])


def install(app: FastAPI) -> None:
    """Make every failure of ``app`` answer in the one shape."""

    @app.exception_handler(EdgeError)
    def _edge_error(request: Request, error: EdgeError) -> JSONResponse:
        return respond(error, request)

    @app.exception_handler(RequestValidationError)
    def _malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(malformed("request", error.errors()), request)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, EdgeError):
            # What was raised while a body was read, FastAPI hides behind a 400.
            return respond(error.__cause__, request)
        if error.status_code == 400:
            # So it does with a body that is not JSON at all; to a worker, 400 means that its version is refused.
            return respond(BadInput(f"{error.detail}."), request)
        named = type("HttpError", (EdgeError,), {"status": error.status_code})
        answer = respond(named(str(error.detail)), request)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(ClientDisconnect)
    def _gone(request: Request, _: ClientDisconnect) -> Response:
        # Nobody hears the answer; a broken link is no fault of this server.
        log.debug("%s %s: the client went away within its request", request.method, request.url.path)
        return Response(status_code=400)

    @app.exception_handler(DatabaseFailure)
    def _database(request: Request, error: DatabaseFailure) -> JSONResponse:
        log.error("%s %s failed in the database", request.method, request.url.path, exc_info=error)
        return respond(explain(error), request)

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return respond(EdgeError("The server failed to answer. Try again; its log has the cause."), request)
