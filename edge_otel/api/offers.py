"""What a worker is told of a job."""

from __future__ import annotations

import json
from typing import Any, TypeVar
from uuid import UUID

from edge_otel.models.assignment import Claimed
from edge_otel.models.tables import Job
from edge_otel.wire import JobOffer, JobOutcome

T = TypeVar("T", bound=JobOffer)


def offer_of(job: Job | Claimed, kind: type[T]) -> T:
    """Return the offer of a claimed job. Raises ValueError where its row holds what cannot be offered."""
    command = json.loads(job.workload)
    fields: dict[str, Any] = {
        "dag_id": job.dag_id,
        "task_id": job.task_id,
        "run_id": job.run_id,
        "map_index": job.map_index,
        "try_number": job.try_number,
        "command": command,
        "concurrency_slots": job.slots,
        "task_instance_id": UUID(job.id),
        "claim": job.claim,
        "queue": job.queue,
        "carrier": job.carrier,
        "queued_at": job.queued_at,
    }
    return kind.model_validate(fields)


def not_offered(error: ValueError) -> JobOutcome:
    """Return the outcome of a job that can be offered to nobody."""
    # The name alone: the text may show the workload, which holds a token.
    return JobOutcome(error=f"This job can be offered to no worker: its row is malformed ({type(error).__name__}).")
