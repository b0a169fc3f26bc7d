"""Airflow's workloads (tasks, callbacks, connection tests) as rows of the job table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow.executors import workloads

from edge_otel.models import jobs
from edge_otel.telemetry import context

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload


MAX_WORKLOAD = 1024 * 1024
"""Characters. A task has one or two thousand; only a callback with huge arguments could come near."""


def job_of(workload: ExecutorWorkload, team: str | None, default_queue: str) -> jobs.NewJob:
    """Return the job of a workload, for the queue that it names or else the default one."""
    text = workload.model_dump_json()
    if isinstance(workload, workloads.ExecuteTask):
        ti = workload.ti
        return jobs.NewJob(
            id=str(ti.id),
            kind="task",
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=ti.map_index,
            try_number=ti.try_number,
            queue=ti.queue,
            slots=ti.pool_slots,
            urgency=1,
            priority=ti.priority_weight,
            team=team,
            workload=text,
            carrier=context.valid(ti.context_carrier),
            log_path=workload.log_path,
        )
    # The names for what is no task are those under which an edge3 worker knows it.
    if isinstance(workload, workloads.ExecuteCallback):
        job_id, kind, tag, queue, log_path = (
            workload.callback.id,
            "callback",
            "ExecuteCallback",
            None,
            workload.log_path,
        )
    else:
        job_id, kind, tag = str(workload.connection_test_id), "connection_test", "TestConnection"
        queue, log_path = workload.queue, None
    return jobs.NewJob(
        id=job_id,
        kind=kind,
        dag_id=tag,
        task_id=job_id,
        run_id=f"{tag}-{job_id}",
        map_index=-1,
        try_number=0,
        queue=queue or default_queue,
        slots=1,
        urgency=0,
        priority=1,
        team=team,
        workload=text,
        carrier=context.valid(json.loads(text).get("callback", {}).get("data", {}).get("context_carrier")),
        log_path=log_path,
    )
