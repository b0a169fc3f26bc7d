"""A task's log as Airflow's own FileTaskHandler shows it, which asks the remote log that Airflow is configured with."""

from __future__ import annotations

from uuid import UUID

from airflow.configuration import conf
from airflow.models.taskinstance import TaskInstance
from airflow.models.tasklog import LogTemplate
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow_rows import put_task_instance
from sqlalchemy import select

from edge_otel.models.session import Session, new_session


def put_with_path(session: Session, state: str) -> tuple[str, str]:
    """Insert a task instance; return its id, and where Airflow looks for its log."""
    if session.scalar(select(LogTemplate.id)) is None:
        session.add(LogTemplate(filename=conf.get("logging", "log_filename_template"), elasticsearch_id=""))
        session.flush()
    ti = put_task_instance(session, state, hostname="")
    return str(ti.id), FileTaskHandler("/")._render_filename(ti, 1, session=session)


def show(task_instance_id: str) -> None:
    """Print the messages of its first try: the sources first, in a group."""
    handler = FileTaskHandler(conf.get("logging", "base_log_folder"))
    with new_session() as session:
        ti = session.scalar(select(TaskInstance).where(TaskInstance.id == UUID(task_instance_id)))
        messages, _ = handler.read(ti, 1)
        for message in messages:
            print(message.event, *(getattr(message, "sources", None) or ()), flush=True)
