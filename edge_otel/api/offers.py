"""What a worker is told of a job."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from edge_otel.models.assignment import Claimed
from edge_otel.models.tables import Job


def offer_fields(job: Job | Claimed) -> dict[str, Any]:
    """Return the fields of a wire.JobOffer."""
    return {
        "dag_id": job.dag_id,
        "task_id": job.task_id,
        "run_id": job.run_id,
        "map_index": job.map_index,
        "try_number": job.try_number,
        "command": json.loads(job.workload),
        "concurrency_slots": job.slots,
        "task_instance_id": UUID(job.id),
        "claim": job.claim,
        "queue": job.queue,
        "carrier": job.carrier,
        "queued_at": job.queued_at,
    }
