"""Rows of Airflow's own tables, and workloads as its scheduler makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from airflow.executors.workloads import ExecuteCallback, ExecuteTask, TestConnection
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.callback import CallbackDTO
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

CARRIER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def task_workload(**fields: Any) -> ExecuteTask:
    """Return the workload of a task."""
    values: dict[str, Any] = {
        "id": uuid4(),
        "dag_id": "dag",
        "task_id": "task",
        "run_id": "run",
        "try_number": 1,
        "map_index": -1,
        "dag_version_id": uuid4(),
        "pool_slots": 1,
        "priority_weight": 1,
        "queue": "default",
        "context_carrier": CARRIER,
    }
    return ExecuteTask(
        ti=TaskInstanceDTO.model_validate(values | fields),
        dag_rel_path="dag.py",
        token="workload-token",
        log_path=f"dag_id=dag/{uuid4()}.log",
        bundle_info=BundleInfo(name="bundle"),
    )


def callback_workload() -> ExecuteCallback:
    """Return the workload of a callback."""
    data = {"path": "callbacks.alert", "kwargs": {}, "context_carrier": CARRIER}
    return ExecuteCallback(
        callback=CallbackDTO(id=str(uuid4()), fetch_method="import_path", data=data),
        dag_rel_path="dag.py",
        token="workload-token",
        log_path="executor_callbacks/dag/run/1",
        bundle_info=BundleInfo(name="bundle"),
    )


def connection_workload(**fields: Any) -> TestConnection:
    """Return the workload of a connection test."""
    return TestConnection.make(connection_test_id=uuid4(), connection_id="db", timeout=30, **fields)


def put_task_instance(session: Session, state: str | None, *, ti_id: UUID | None = None, **fields: Any) -> TaskInstance:
    """Insert a task instance with the rows it refers to, and return it."""
    if session.scalar(select(DagModel.dag_id)) is None:
        session.add(DagBundleModel(name="bundle"))
        session.flush()
        session.add(DagModel(dag_id="dag", bundle_name="bundle", max_active_tasks=16))
        session.flush()
        session.add(DagRun(dag_id="dag", run_id="run", run_type="manual", run_after=datetime.now(UTC)))
        session.flush()
    ti_id = ti_id or uuid4()
    values = {
        "id": ti_id,
        "dag_id": "dag",
        "task_id": f"task-{ti_id}",
        "run_id": "run",
        "map_index": -1,
        "try_number": 1,
        "pool": "default_pool",
        "pool_slots": 1,
        "queue": "default",
        "state": state,
    }
    session.execute(insert(TaskInstance).values(**values | fields))
    return session.scalars(select(TaskInstance).where(TaskInstance.id == ti_id)).one()


def workload_of(ti: TaskInstance) -> ExecuteTask:
    """Return the workload of a task instance."""
    return task_workload(id=ti.id, task_id=ti.task_id, try_number=ti.try_number)


def clear(session: Session) -> None:
    """Delete what ``put_task_instance`` inserted."""
    for table in (TaskInstance, DagRun, DagModel, DagBundleModel):
        session.execute(delete(table))
