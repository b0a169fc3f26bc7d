"""Every span and attribute name, written once. Source of the general ones: OpenTelemetry semantic conventions."""

from __future__ import annotations

# resource
SERVICE_NAME = "service.name"
SERVICE_NAMESPACE = "service.namespace"
SERVICE_VERSION = "service.version"
HOST_NAME = "host.name"
OS_TYPE = "os.type"
WORKER_NAME = "edge.worker.name"

# attributes of a job's spans
DAG_ID = "airflow.dag_id"
TASK_ID = "airflow.task_id"
RUN_ID = "airflow.dag_run.run_id"
MAP_INDEX = "airflow.task_instance.map_index"
TRY_NUMBER = "airflow.task_instance.try_number"
JOB_ID = "messaging.message.id"
QUEUE = "messaging.destination.name"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
MESSAGING_SYSTEM = "messaging.system"
JOB_CLAIM = "edge.job.claim"
JOB_OUTCOME = "edge.job.outcome"
JOB_LAUNCH_MODE = "edge.job.launch_mode"
EXIT_CODE = "process.exit.code"
ERROR_TYPE = "error.type"

SYSTEM = "airflow"
"""Value of ``messaging.system``: the queue is Airflow's."""


def process_span(queue: str) -> str:
    """Return the name of the daemon's span around one job: the hop's far end."""
    return f"process {queue}"
