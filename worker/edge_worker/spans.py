"""The daemon's spans, built from what the loops report. The one around a job is made at its end, from what the journal
holds: so it survives a restart with the same ids."""

from __future__ import annotations

from typing import Any

from edge_otel.telemetry import names
from edge_otel.telemetry.spans import Finished, Recorder
from edge_worker.journal import Ticket
from edge_worker.plan import Ending


def hand_over(workload: dict[str, Any], span: dict[str, str]) -> dict[str, Any]:
    """Return the workload with the daemon's span as the parent of the task's own."""
    ti = workload.get("ti")
    if not isinstance(ti, dict) or not ti.get("context_carrier"):
        return workload
    return {**workload, "ti": {**ti, "context_carrier": {**ti["context_carrier"], **span}}}


class Spans:
    """What happened here, as spans."""

    def __init__(self, worker: str, recorder: Recorder) -> None:
        self._worker = worker
        self._recorder = recorder

    def process(self, ticket: Ticket, ending: Ending, ended_at: float, launch_mode: str) -> None:
        """Record that a job has ended. Blocking where the SDK must be loaded; never raises."""
        attributes: dict[str, str | int | float] = {
            names.MESSAGING_SYSTEM: "airflow",
            names.OPERATION_NAME: "process",
            names.OPERATION_TYPE: "process",
            names.QUEUE: ticket.queue,
            names.JOB_ID: ticket.id,
            names.DAG_ID: ticket.dag_id,
            names.TASK_ID: ticket.task_id,
            names.RUN_ID: ticket.run_id,
            names.MAP_INDEX: ticket.map_index,
            names.TRY_NUMBER: ticket.try_number,
            names.WORKER_NAME: self._worker,
            names.JOB_CLAIM: ticket.claim,
            names.JOB_OUTCOME: ending.outcome,
            names.JOB_LAUNCH_MODE: launch_mode,
        }
        if ending.exit_code is not None:
            attributes[names.EXIT_CODE] = ending.exit_code
        if ending.error_type:
            attributes[names.ERROR_TYPE] = ending.error_type
        self._recorder.record(
            Finished(
                names.PROCESS,
                ticket.span,
                ticket.parent,
                ticket.confirmed_at,
                ended_at,
                attributes,
                ticket.queue,
                ending.error,
            )
        )

    def close(self) -> None:
        """Send what is left, for a bounded time."""
        self._recorder.close()
