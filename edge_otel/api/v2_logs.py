"""v2: task logs by byte range. The server keeps the cursor; a repeat is a no-op, a gap is answered with the cursor."""

from __future__ import annotations

import re
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from edge_otel.api.auth import Caller, Principal
from edge_otel.api.body_limit import MAX_LOG_BODY
from edge_otel.api.log_files import Writer
from edge_otel.api.refusals import RESPONSES, cursor_range
from edge_otel.errors import BadInput, JobNotFound, LogGap, StaleClaim
from edge_otel.models import jobs, logs
from edge_otel.models.packed import Packed
from edge_otel.models.session import Session, new_session
from edge_otel.models.tables import Job
from edge_otel.telemetry import counters
from edge_otel.wire import CLAIM_HEADER, Claim

router = APIRouter(prefix="/v2/jobs", tags=["Logs"], responses=RESPONSES)

_RANGE = re.compile(r"^bytes (\d{1,18})-(\d{1,18})/\*$")

_BODY = {
    "requestBody": {
        "description": "The bytes",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

ClaimHeader = Annotated[Claim, Header(alias=CLAIM_HEADER, description="Claim number of the job")]


@router.patch("/{job_id}/log", status_code=202, response_class=Response, openapi_extra=_BODY)
async def append(
    job_id: UUID,
    request: Request,
    caller: Caller,
    claim: ClaimHeader,
    content_range: Annotated[str, Header(description="`bytes a-b/*`, before compression", pattern=_RANGE.pattern)],
    content_encoding: Annotated[str, Header(pattern="^(gzip|identity)$")] = "identity",
) -> Response:
    """Append bytes of the task's log file; the Range header of the answer tells how many are stored."""
    body = await request.body()
    if content_encoding == "gzip":
        packed = await run_in_threadpool(Packed.of_gzip, body, MAX_LOG_BODY)
    else:
        packed = await run_in_threadpool(Packed.of, body)
    first = _first_byte(content_range, packed.length)
    return await run_in_threadpool(_append, str(job_id), claim, first, packed, caller, request.app.state.log_writer)


@router.head("/{job_id}/log", response_class=Response)
def cursor(job_id: UUID, caller: Caller, claim: ClaimHeader) -> Response:
    """Tell how many bytes are stored, in the Range header."""
    with new_session() as session:
        job = job_of(session, str(job_id), claim, caller)
        return _stored(logs.cursor(session, job.id, claim), 200)


def _append(job_id: str, claim: int, first: int, packed: Packed, caller: Principal, writer: Writer) -> Response:
    with new_session() as session:
        job = job_of(session, job_id, claim, caller)
        try:
            stored = logs.append(session, job, claim, first, packed)
        except LogGap:
            counters.LOG_GAPS.inc()
            raise
        complete = job.id if logs.all_here(session, job) else None
    counters.LOG_BYTES_STORED.inc(stored.fresh)
    if complete is not None:
        writer.finalise(complete)
    return _stored(stored.cursor, 202)


def job_of(session: Session, job_id: str, claim: int, caller: Principal) -> Job:
    """Return the job, locked, that is or was the caller's under this claim. Raises EdgeError."""
    job = jobs.lock(session, job_id, claim)
    if job is None:
        raise JobNotFound
    # A task that was deferred may run again elsewhere while the log of its first part is still coming.
    holder = job.worker if claim == job.claim else job.holders.get(str(claim))
    if claim != job.claim and holder is None:
        raise StaleClaim
    caller.require_worker(holder)
    caller.require_scope(job.team, [job.queue])
    return job


def _stored(cursor: int, status: int) -> Response:
    return Response(status_code=status, headers={"Range": cursor_range(cursor)})


def _first_byte(content_range: str, length: int) -> int:
    match = _RANGE.match(content_range)
    if match is None:
        raise BadInput("Content-Range is not of the form `bytes a-b/*`.")
    first, last = map(int, match.groups())
    if last - first + 1 != length:
        raise BadInput(f"Content-Range speaks of {last - first + 1} bytes, the body has {length}.")
    return first
