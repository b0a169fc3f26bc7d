"""v2: the OTLP gateway. Who sends is the server's word, taken from the token."""

from __future__ import annotations

import re
from typing import Annotated, get_args

from fastapi import APIRouter, Header, HTTPException, Request, Response
from pydantic import BeforeValidator
from starlette.requests import ClientDisconnect

from edge_otel.api.auth import Caller, Principal
from edge_otel.api.forwarder import PROTOBUF, Forwarder, Signal
from edge_otel.api.refusals import RESPONSES
from edge_otel.errors import (
    CollectorAway,
    CollectorRefused,
    EdgeError,
    Forbidden,
    NoCollector,
    NotOtlp,
    TooBusy,
    TooLarge,
    UnsupportedMedia,
)
from edge_otel.telemetry import counters
from edge_otel.wire import NAME_PATTERN, WORKER_HEADER, ErrorBody

_DOCUMENT = {
    "requestBody": {
        "description": "An Export…ServiceRequest",
        "required": True,
        "content": {PROTOBUF: {"schema": {"type": "string", "format": "binary"}}},
    }
}
_ANSWERS = RESPONSES | {
    200: {"description": "The collector has it", "content": {PROTOBUF: {}}},
    400: {"model": ErrorBody, "description": "No OTLP, or refused by the collector: sending it again would not help"},
    404: {"model": ErrorBody, "description": "There is no collector, or it does not take this signal"},
    415: {"model": ErrorBody, "description": "Not protobuf"},
    503: {"model": ErrorBody, "description": "The collector is away, or too much is on its way: see Retry-After"},
}

_REASONS: dict[type[EdgeError], str] = {
    Forbidden: "forbidden",
    UnsupportedMedia: "media_type",
    NotOtlp: "malformed",
    TooLarge: "too_large",
    NoCollector: "no_collector",
    CollectorRefused: "refused",
    CollectorAway: "collector_away",
    TooBusy: "busy",
}
"""How the reason of a refusal is called in the metric."""

router = APIRouter(prefix="/v2/otlp/v1", tags=["Telemetry"], responses=_ANSWERS)


def _known(signal: str) -> str:
    if signal not in get_args(Signal):
        raise HTTPException(404)
    return signal


KnownSignal = Annotated[Signal, BeforeValidator(_known)]
WorkerHeader = Annotated[
    str | None, Header(alias=WORKER_HEADER, description="The worker; needed with a token for several")
]


@router.post("/{signal}", response_class=Response, openapi_extra=_DOCUMENT)
async def export(signal: KnownSignal, request: Request, caller: Caller, worker: WorkerHeader = None) -> Response:
    """Pass a worker's traces, metrics or logs on to the collector, with its name on every resource."""
    forwarder: Forwarder = request.app.state.forwarder
    try:
        name = sender(caller, worker)
        answer = await forwarder.forward(signal, name, request.body, gzipped=_is_gzipped(request))
    except ClientDisconnect:
        return Response(status_code=400)
    except EdgeError as error:
        counters.OTLP_REJECTED.labels(signal, _REASONS.get(type(error), "error")).inc()
        raise
    return Response(answer, media_type=PROTOBUF)


def sender(caller: Principal, claimed: str | None) -> str:
    """Return the name of the worker that sends: the token's, or the one claimed where the token is for a group."""
    if caller.shared_secret:
        raise Forbidden(reason="telemetry is taken with a worker's own token only")
    if re.fullmatch(NAME_PATTERN, caller.workers):
        return caller.workers
    if claimed is None or len(claimed) > 64 or not re.fullmatch(NAME_PATTERN, claimed):
        raise Forbidden(reason=f"token {caller.token_id} is for {caller.workers!r}; the header names no worker")
    caller.require_worker(claimed)
    return claimed


def _is_gzipped(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if kind != PROTOBUF or encoding not in ("gzip", "identity"):
        raise UnsupportedMedia
    return encoding == "gzip"
