"""v1: fetching jobs and reporting on them, as edge3 5.1.0 speaks it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query, Request

from edge_otel.api.auth import Caller, Principal
from edge_otel.api.offers import not_offered, offer_of
from edge_otel.api.refusals import RESPONSES
from edge_otel.errors import BadInput, JobNotFound, SessionReplaced, StaleClaim, WorkerUpgradeNeeded
from edge_otel.models import jobs, logs, reports, workers
from edge_otel.models.session import Session, new_session
from edge_otel.models.tables import Job
from edge_otel.models.wakeup import announce_jobs
from edge_otel.settings import Settings
from edge_otel.state import FINISHED, TAKES_JOBS, JobState, Verdict, WorkerState
from edge_otel.telemetry import central_spans, counters
from edge_otel.wire import Coordinate, FetchRequest, JobOffer, JobReport, LogPush, Number, ReportedState, WorkerName

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1", tags=["Jobs"], responses=RESPONSES)

# An edge3 worker starts the process before it says so, and may go on saying so for 5 minutes and 7 seconds (its retry
# budget). Its offers must outlive that, or a job would run twice.
_EDGE3_OFFER_TIMEOUT = timedelta(minutes=6)
_EDGE3_KINDS = ("task", "callback")
_ALL_KINDS = ("task", "callback", "connection_test")

_REPORTED = {
    "running": JobState.RUNNING,
    "success": JobState.SUCCESS,
    "failed": JobState.FAILED,
    "up_for_retry": JobState.FAILED,
    "removed": JobState.FAILED,
    "queued": JobState.QUEUED,
}


@router.post("/jobs/fetch/{worker_name}")
def fetch(worker_name: WorkerName, wish: FetchRequest, caller: Caller, request: Request) -> JobOffer | None:
    """Give the worker its next job, or null."""
    caller.require_worker(worker_name)
    if not wish.supports_task_instance_uuid:
        raise WorkerUpgradeNeeded
    settings: Settings = request.app.state.settings
    timeout = timedelta(seconds=settings.offer_timeout) if wish.claims else _EDGE3_OFFER_TIMEOUT
    queues = caller.allowed_queues(wish.queues)
    with new_session() as session:
        worker = workers.get(session, worker_name)
        caller.require_scope(worker.team, worker.queues)
        if worker.session != wish.session:
            raise SessionReplaced
        if WorkerState(worker.state) not in TAKES_JOBS or wish.free_concurrency <= 0:
            return None
        if worker.queues is not None:
            # What an administrator took away counts at once, also before the worker has heard of it.
            queues = [q for q in worker.queues if queues is None or q in queues]
        now = datetime.now(UTC)
        claim = partial(
            jobs.claim_next,
            session,
            worker,
            queues=queues,
            free_slots=wish.free_concurrency,
            kinds=_ALL_KINDS if wish.claims else _EDGE3_KINDS,
            now=now,
            offer_timeout=timeout,
        )
        offer = None
        spans = []
        while offer is None and (job := claim()) is not None:
            spans.append(central_spans.queued(job, worker_name, job.claim, job.queued_at, now))
            try:
                offer = offer_of(job, JobOffer)
            except ValueError as error:
                outcome = not_offered(error)
                log.error("Job %s: %s", job.id, outcome.error)  # noqa: TRY400
                jobs.record_report(job, JobState.FAILED, job.claim, now, error=outcome.error)
                counters.reported(JobState.FAILED, Verdict.STORED, queue=job.queue, carrier=job.carrier)
    for span in spans:
        request.app.state.spans.record(span)
    if offer is not None:
        counters.assigned(offer.queue, offer.carrier, offer.queued_at or now, now)
    return offer


_Coordinates = "{dag_id}/{task_id}/{run_id}/{try_number}/{map_index}"
DagId = Annotated[Coordinate, Path()]
TaskId = Annotated[Coordinate, Path()]
RunId = Annotated[Coordinate, Path()]
TryNumber = Annotated[Number, Path()]
MapIndex = Annotated[Number, Path()]


@router.patch(f"/jobs/state/{_Coordinates}/{{state}}")
def set_state(
    dag_id: DagId,
    task_id: TaskId,
    run_id: RunId,
    try_number: TryNumber,
    map_index: MapIndex,
    state: ReportedState,
    caller: Caller,
    request: Request,
    report: Annotated[JobReport | None, Body()] = None,
) -> None:
    """Take a worker's word on its job. ``running`` answers the offer: only after 200 may the process start."""
    report = report or JobReport()
    if not caller.shared_secret and (report.claim is None or report.task_instance_id is None):
        raise BadInput("task_instance_id and claim are missing: a worker with a token must send both.")
    if state == "restarting":
        return
    coordinates = (dag_id, task_id, run_id, try_number, map_index)
    with new_session() as session:
        job = _locked_job(session, coordinates, report.task_instance_id, caller, report.claim)
        if job is None:
            return
        verdict = jobs.record_report(
            job,
            _REPORTED[state],
            job.claim if report.claim is None else report.claim,
            datetime.now(UTC),
            exit_code=report.exit_code,
            error=report.error,
            log_length=report.log_length,
            log_sha256=report.log_sha256,
        )
        if report.claim is None and verdict is Verdict.STORED:
            # An edge3 worker, which never says how long a log is.
            job.log_ends = {**job.log_ends, str(job.claim): [None, None]}
        if verdict is Verdict.STORED and job.state == JobState.QUEUED:
            announce_jobs(session)
        job_id, finished = job.id, job.state in FINISHED
        queue, carrier, ran = job.queue, job.carrier, reports.ran(job)
    counters.reported(_REPORTED[state], verdict, queue=queue, carrier=carrier, ran=ran, why="declined")
    if finished:
        request.app.state.log_writer.finalise(job_id)
    if verdict is Verdict.STALE:
        if caller.shared_secret:
            log.warning("Job %s: a stale report (%s) of an edge3 worker changes nothing.", job_id, state)
            return
        raise StaleClaim


@router.get(f"/logs/logfile_path/{_Coordinates}", tags=["Logs"])
def logfile_path(
    dag_id: DagId,
    task_id: TaskId,
    run_id: RunId,
    try_number: TryNumber,
    map_index: MapIndex,
    caller: Caller,
    task_instance_id: Annotated[UUID | None, Query()] = None,
) -> str:
    """Return where the log belongs, relative to the base log folder."""
    with new_session() as session:
        job = _locked_job(session, (dag_id, task_id, run_id, try_number, map_index), task_instance_id, caller)
        if job is None or job.log_path is None:
            raise JobNotFound
        return job.log_path


@router.post(f"/logs/push/{_Coordinates}", tags=["Logs"])
def push_logs(
    dag_id: DagId,
    task_id: TaskId,
    run_id: RunId,
    try_number: TryNumber,
    map_index: MapIndex,
    piece: LogPush,
    caller: Caller,
    request: Request,
) -> None:
    """Store the next piece of a log; the same piece sent again is not stored again."""
    with new_session() as session:
        job = _locked_job(session, (dag_id, task_id, run_id, try_number, map_index), piece.task_instance_id, caller)
        if job is None:
            return
        stored = logs.push(session, job, piece.log_chunk_data.encode(errors="backslashreplace"), piece.log_chunk_time)
        job_id, finished = job.id, job.state in FINISHED
    counters.LOG_BYTES_STORED.inc(stored)
    if finished:
        request.app.state.log_writer.finalise(job_id)


def _locked_job(
    session: Session,
    coordinates: tuple[str, str, str, int, int],
    task_instance_id: UUID | None,
    caller: Principal,
    claim: int | None = None,
) -> Job | None:
    """Return the caller's job. One that is not there is None for edge3, which gives a job up on any error."""
    job_id = str(task_instance_id) if task_instance_id else jobs.id_at(session, *coordinates)
    job = jobs.lock(session, job_id, claim) if job_id else None
    if job is not None and claim is None and not _is_at(job, coordinates):
        # An edge3 worker names no claim, but the try.
        earlier = jobs.id_at(session, *coordinates, known_as=job_id)
        job = jobs.lock(session, earlier) if earlier else None
    if job is None or not _is_at(job, coordinates):
        if caller.shared_secret:
            return None
        raise JobNotFound
    holder = job.worker
    if claim is not None and claim < job.claim and (holder := job.holders.get(str(claim))) is None:
        # Before the question whose job it is now: the caller was its worker once, and must learn that it is not.
        counters.JOBS_STALE.labels(job.queue).inc()
        raise StaleClaim
    caller.require_worker(holder)
    caller.require_scope(job.team, [job.queue])
    return job


def _is_at(job: Job, coordinates: tuple[str, str, str, int, int]) -> bool:
    return (job.dag_id, job.task_id, job.run_id, job.try_number, job.map_index) == coordinates
