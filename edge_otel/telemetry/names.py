"""Every telemetry name, written once, as data: what emits, the dashboards, the rules and the docs use these objects.

Names that do not begin with ``edge.`` or ``edge_`` are those of the OpenTelemetry semantic conventions, or Airflow's.
Dag, task and run ids are attributes of spans and logs, never of metrics.
"""

from __future__ import annotations

from dataclasses import dataclass


class Attribute(str):
    """The name of a span, resource, log or metric attribute."""

    __slots__ = ("help", "values")

    help: str
    values: tuple[str, ...]
    """All values that there are; empty where they cannot be listed."""

    def __new__(cls, name: str, help: str, values: tuple[str, ...] = ()) -> Attribute:
        """Declare an attribute."""
        self = super().__new__(cls, name)
        self.help, self.values = help, values
        return self


@dataclass(frozen=True)
class Span:
    """A kind of span."""

    operation: str
    """The first word of its name; the queue follows where ``by_queue``."""
    kind: str
    """INTERNAL, PRODUCER, CONSUMER, CLIENT or SERVER."""
    parent: str
    service: str
    """The ``service.name`` that records it."""
    help: str
    attributes: tuple[Attribute, ...]
    by_queue: bool = False

    def named(self, queue: str = "") -> str:
        """Return the name of one such span."""
        return f"{self.operation} {queue}" if self.by_queue else self.operation


@dataclass(frozen=True)
class Metric:
    """A metric. Prometheus names have their unit at the end; OpenTelemetry's have it in ``unit``."""

    name: str
    kind: str
    """counter, updowncounter, gauge or histogram."""
    unit: str
    """Of UCUM: s, By, 1, or {what is counted}."""
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds, for a histogram."""


# fmt: off

# Resource attributes.
SERVICE_NAMESPACE = Attribute("service.namespace", "airflow")
SERVICE_NAME = Attribute("service.name", "Who speaks", ("edge-worker", "edge-api", "edge-executor", "airflow-task"))
SERVICE_VERSION = Attribute("service.version", "Version of edge-otel")
DEPLOYMENT = Attribute("deployment.environment.name", "Where the worker was told (OTEL_RESOURCE_ATTRIBUTES)")
HOST_NAME = Attribute("host.name", "Host name")
HOST_ID = Attribute("host.id", "The machine's id, where the system has one")
OS_TYPE = Attribute("os.type", "Such as linux")
WORKER_NAME = Attribute("edge.worker.name", "The worker; as a resource attribute always that of the token")

RESOURCE = (SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_VERSION, DEPLOYMENT, HOST_NAME, HOST_ID, OS_TYPE, WORKER_NAME)

# Attributes of spans and logs.
DAG_ID = Attribute("airflow.dag_id", "Dag")
TASK_ID = Attribute("airflow.task_id", "Task")
RUN_ID = Attribute("airflow.dag_run.run_id", "Dag run")
MAP_INDEX = Attribute("airflow.task_instance.map_index", "Index of a mapped task, or -1")
TRY_NUMBER = Attribute("airflow.task_instance.try_number", "Try, from 1")
JOB_ID = Attribute("messaging.message.id", "The job: id of the task instance, callback or connection test")
QUEUE = Attribute("messaging.destination.name", "Queue")
OPERATION_NAME = Attribute("messaging.operation.name", "send, process, …", ("send", "queue", "process", "orphan"))
OPERATION_TYPE = Attribute("messaging.operation.type", "As the conventions classify it", ("send", "process"))
MESSAGING_SYSTEM = Attribute("messaging.system", "airflow: the queue is Airflow's", ("airflow",))
JOB_CLAIM = Attribute("edge.job.claim", "Number of the claim under which the worker holds the job")
JOB_QUEUE_DURATION = Attribute("edge.job.queue.duration", "Seconds from queued to assigned")
JOB_OUTCOME = Attribute(
    "edge.job.outcome",
    "What became of the job: failed is the user's code, killed a process that did not end by itself, stale a job that"
    " is not this worker's any more, lost one whose worker is gone",
    ("success", "failed", "killed", "stale", "lost"),
)
JOB_LAUNCH_MODE = Attribute("edge.job.launch_mode", "How the process was started", ("zygote", "interpreter"))
JOB_CPU_TIME = Attribute("edge.job.cpu.time", "Seconds of CPU that the job's processes used")
JOB_MEMORY_PEAK = Attribute("edge.job.memory.peak", "Most bytes that the largest of the job's processes held")
EXIT_CODE = Attribute("process.exit.code", "As of waitpid: negative is a signal")
ERROR_TYPE = Attribute(
    "error.type",
    "Why it failed: task_failed for the user's code, else what went wrong around it, for a job: supervisor_failed,"
    " launch_failed, out_of_memory, signal_9 and other numbers, stopped_by_worker, cancelled, stale_claim,"
    " result_missing, machine_restarted",
)
EXCEPTION_TYPE = Attribute("exception.type", "Class of the exception that a line of the log shows")
EXCEPTION_MESSAGE = Attribute("exception.message", "Its text")
EXCEPTION_STACKTRACE = Attribute("exception.stacktrace", "Its traceback")
LOG_RECORD_ID = Attribute("log.record.uid", "Of a line of a task's log: what comes twice under one id is one line")
LOG_TRUNCATED = Attribute("edge.log.truncated", "True where a line was too long: only its beginning is there")
LOG_RECORD = (EXCEPTION_TYPE, EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, LOG_RECORD_ID, LOG_TRUNCATED)
"""Beside the attributes of the job that it is about."""
ORPHAN_REASON = Attribute("edge.orphan.reason", "Why nobody will report this job", ("worker_gone", "not_reported"))
LOG_OFFSET = Attribute("edge.log.offset", "First byte of the chunk in the log file")
LOG_BYTES = Attribute("edge.log.bytes", "Bytes of the chunk before compression")
HTTP_STATUS = Attribute("http.response.status_code", "Status of the answer")
WORKER_STATE = Attribute("edge.worker.state", "State of the worker, as it reports or is told it")
JOBS_ACTIVE = Attribute("edge.worker.jobs_active", "Jobs that the worker holds")
TRANSPORT = Attribute("edge.worker.transport", "How the worker talks", ("channel", "polling"))
CAUSE = Attribute("edge.cause", "What brought it about: admin, local, automatic, signal, start, reconnect, …")

# Attributes of metrics.
SIGNAL = Attribute("edge.otlp.signal", "Kind of telemetry", ("traces", "metrics", "logs"))
REASON = Attribute("edge.reason", "Why")
RESULT = Attribute("edge.result", "How it ended", ("ok", "failed"))
FACT = Attribute("edge.fact.name", "Name of a number that the user's own function returns")
CPU_MODE = Attribute("cpu.mode", "What the CPU did",
    ("user", "nice", "system", "idle", "iowait", "interrupt", "steal"))
MEMORY_STATE = Attribute("system.memory.state", "What the memory is", ("used", "free", "buffers", "cached"))
PAGING_STATE = Attribute("system.paging.state", "What the swap is", ("used", "free"))
FILESYSTEM_STATE = Attribute("system.filesystem.state", "What the space is", ("used", "free", "reserved"))
MOUNTPOINT = Attribute("system.filesystem.mountpoint", "Mount point of the state folder")
DEVICE = Attribute("system.device", "Device of the state folder's file system, or disk")
DISK_DIRECTION = Attribute("disk.io.direction", "Direction", ("read", "write"))
INTERFACE = Attribute("network.interface.name", "Network interface; loopback is left out")
NETWORK_DIRECTION = Attribute("network.io.direction", "Direction", ("receive", "transmit"))

_JOB = (MESSAGING_SYSTEM, OPERATION_NAME, QUEUE, JOB_ID, DAG_ID, TASK_ID, RUN_ID, MAP_INDEX, TRY_NUMBER)
_ENDED = (WORKER_NAME, JOB_CLAIM, JOB_OUTCOME, ERROR_TYPE)

SEND = Span(
    "send", "PRODUCER", "the task", "edge-executor", "The scheduler puts the job in its table.",
    (*_JOB, OPERATION_TYPE), by_queue=True,
)
QUEUED = Span(
    "queue", "INTERNAL", "the task", "edge-api", "The job waited: from queued to assigned to a worker.",
    (*_JOB, WORKER_NAME, JOB_CLAIM, JOB_QUEUE_DURATION), by_queue=True,
)
PROCESS = Span(
    "process", "CONSUMER", "the task", "edge-worker",
    "The daemon held the job: from the confirmed offer to its end. It survives the kill of the task and of the daemon.",
    (*_JOB, OPERATION_TYPE, *_ENDED, JOB_LAUNCH_MODE, EXIT_CODE, JOB_CPU_TIME, JOB_MEMORY_PEAK), by_queue=True,
)
LAUNCH = Span(
    "launch", "INTERNAL", "process", "edge-worker",
    "From the confirmed offer to the running process, told at the job's end; or one attempt that failed.",
    (JOB_ID, JOB_LAUNCH_MODE, ERROR_TYPE),
)
SHIP_LOG = Span(
    "ship log", "CLIENT", "process", "edge-worker",
    "One chunk of the task's log went to the Edge API; a row of failures to send it is one span, too.",
    (JOB_ID, LOG_OFFSET, LOG_BYTES, HTTP_STATUS, ERROR_TYPE),
)
ORPHAN = Span(
    "orphan", "INTERNAL", "the task", "edge-executor", "The scheduler ended a job that no worker will report.",
    (*_JOB, *_ENDED, ORPHAN_REASON), by_queue=True,
)
HEARTBEAT = Span(
    "heartbeat", "CLIENT", "its own root", "edge-worker",
    "A heartbeat and its answer; recorded when it failed, took more than a second, changed the state, or is sampled.",
    (WORKER_NAME, WORKER_STATE, JOBS_ACTIVE, TRANSPORT, ERROR_TYPE),
)
HEARTBEAT_SERVER = Span(
    "heartbeat", "SERVER", "the worker's heartbeat", "edge-api",
    "The same at the Edge API, until it is stored; where the worker decided for a span before it was answered.",
    (WORKER_NAME, WORKER_STATE, JOBS_ACTIVE, ERROR_TYPE),
)
REGISTER = Span(
    "register", "INTERNAL", "its own root", "edge-worker", "The worker announced itself, at its start or again.",
    (WORKER_NAME, WORKER_STATE, TRANSPORT, CAUSE, ERROR_TYPE),
)
DRAIN = Span(
    "drain", "INTERNAL", "its own root", "edge-worker", "From the wish to leave until the last job had ended.",
    (WORKER_NAME, JOBS_ACTIVE, CAUSE),
)
MAINTENANCE = Span(
    "maintenance", "INTERNAL", "its own root", "edge-worker", "The worker took no jobs; recorded when that ends.",
    (WORKER_NAME, CAUSE),
)

SPANS = (SEND, QUEUED, PROCESS, LAUNCH, SHIP_LOG, ORPHAN, HEARTBEAT, HEARTBEAT_SERVER, REGISTER, DRAIN, MAINTENANCE)

_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WAIT = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
_RUN = (1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0)

STATE_CODES = {
    "idle": 0, "running": 1, "starting": 2,
    "maintenance exit": 10, "maintenance request": 11, "maintenance pending": 12, "maintenance mode": 13,
    "shutdown request": 20, "terminating": 21,
    "offline": 30, "offline maintenance": 31, "unknown": 32,
}
"""Numbers for the state timeline: under 10 the worker takes jobs, from 10 it is in maintenance, from 20 it leaves, from
30 it is gone. They never change."""

# The fleet, from the database: every replica says the same, so panels and rules take `max by (…)`.
WORKER_STATES = Metric("edge_worker_state", "gauge", "1", "1 for the state of the worker now, 0 for the others.",
    ("worker", "team", "state"))
WORKER_STATE_CODE = Metric("edge_worker_state_code", "gauge", "1",
    "The state of the worker as a number: under 10 it takes jobs, from 10 maintenance, from 20 leaving, from 30 gone.",
    ("worker", "team"))
# Not edge_worker_count: that ending belongs to histograms.
WORKER_COUNT = Metric("edge_workers", "gauge", "{worker}", "Workers in this state.", ("state", "team"))
WORKER_LAST_HEARTBEAT = Metric("edge_worker_last_heartbeat_timestamp_seconds", "gauge", "s",
    "When the worker was heard last, in seconds since 1970.", ("worker", "team"))
WORKER_HEARTBEAT_INTERVAL = Metric("edge_worker_heartbeat_interval_seconds", "gauge", "s",
    "How often the worker is to report: silence is measured by it.", ("worker", "team"))
WORKER_CONNECTED = Metric("edge_worker_connected", "gauge", "1",
    "1 while the worker is there and talks over a channel; 0 while it polls, or is gone.",
    ("worker", "team"))
WORKER_SLOTS = Metric("edge_worker_slots", "gauge", "{slot}", "Slots of the worker.", ("worker", "team"))
WORKER_SLOTS_USED = Metric("edge_worker_slots_used", "gauge", "{slot}", "Slots held by assigned and running jobs.",
    ("worker", "team"))
WORKER_INFO = Metric("edge_worker_info", "gauge", "1", "Versions of the worker; always 1.",
    ("worker", "version", "airflow_version", "python_version", "os"))
WORKER_MAINTENANCE = Metric("edge_worker_maintenance", "gauge", "1",
    "1 while the worker is in maintenance, by who wanted it.", ("worker", "team", "origin"))
WORKER_CPU = Metric("edge_worker_host_cpu_utilization", "gauge", "1", "CPU in use at the host, 0 to 1.", ("worker",))
WORKER_MEMORY = Metric("edge_worker_host_memory_utilization", "gauge", "1", "Memory in use at the host, 0 to 1.",
    ("worker",))
WORKER_DISK = Metric("edge_worker_host_disk_utilization", "gauge", "1",
    "Space in use on the file system of the state folder, 0 to 1.", ("worker",))
WORKER_LOAD = Metric("edge_worker_host_load1", "gauge", "1", "Load of the host over one minute.", ("worker",))
WORKER_CLOCK_SKEW = Metric("edge_worker_clock_skew_seconds", "gauge", "s",
    "The worker's clock minus the server's, as the worker measured it.", ("worker",))
# Not as the worker's own OTLP metrics are called once Prometheus has flattened their names.
WORKER_LOG_BACKLOG = Metric("edge_worker_unsent_log_bytes", "gauge", "By",
    "Task log at the site that the Edge API does not have yet.", ("worker",))
WORKER_OUTBOX = Metric("edge_worker_unsent_telemetry_bytes", "gauge", "By",
    "Telemetry at the site that waits to be sent.", ("worker",))
WORKER_DROPPED = Metric("edge_worker_dropped_telemetry", "gauge", "{item}",
    "Payloads of telemetry that the worker has dropped since it started.", ("worker",))
WORKER_FACT = Metric("edge_worker_fact", "gauge", "1", "A number that the user's own function returned.",
    ("worker", "fact"))
JOBS = Metric("edge_jobs", "gauge", "{job}", "Jobs in the table; finished ones until they are purged.",
    ("queue", "team", "state"))
QUEUE_OLDEST = Metric("edge_queue_oldest_job_age_seconds", "gauge", "s", "Age of the oldest queued job; 0 for none.",
    ("queue", "team"))
QUEUE_WORKERS = Metric("edge_queue_workers", "gauge", "{worker}", "Workers that take jobs of the queue now.",
    ("queue", "team"))
QUEUE_SLOTS = Metric("edge_queue_slots", "gauge", "{slot}", "Slots of the workers that take jobs of the queue now.",
    ("queue", "team"))
QUEUE_SLOTS_USED = Metric("edge_queue_slots_used", "gauge", "{slot}",
    "Slots held by assigned and running jobs of the queue.", ("queue", "team"))
SNAPSHOT_AGE = Metric("edge_fleet_snapshot_age_seconds", "gauge", "s",
    "How long ago the metrics of the fleet were read from the database.")

FLEET = (
    WORKER_STATES, WORKER_STATE_CODE, WORKER_COUNT, WORKER_LAST_HEARTBEAT, WORKER_HEARTBEAT_INTERVAL, WORKER_CONNECTED,
    WORKER_SLOTS, WORKER_SLOTS_USED, WORKER_INFO, WORKER_MAINTENANCE, WORKER_CPU, WORKER_MEMORY, WORKER_DISK,
    WORKER_LOAD, WORKER_CLOCK_SKEW, WORKER_LOG_BACKLOG, WORKER_OUTBOX, WORKER_DROPPED, WORKER_FACT, JOBS, QUEUE_OLDEST,
    QUEUE_WORKERS, QUEUE_SLOTS, QUEUE_SLOTS_USED, SNAPSHOT_AGE,
)

# What one process of the Edge API has done: panels and rules take `sum by (…) (rate(…))`.
JOB_QUEUE_SECONDS = Metric("edge_job_queue_duration_seconds", "histogram", "s",
    "From queued to assigned. Its exemplars name the task's trace.", ("queue",), _WAIT)
JOB_RUN_SECONDS = Metric("edge_job_run_duration_seconds", "histogram", "s",
    "From the confirmed offer to the reported end. Its exemplars name the task's trace.",
    ("queue", "outcome"), _RUN)
JOBS_ASSIGNED = Metric("edge_jobs_assigned_total", "counter", "{job}", "Jobs offered to workers.", ("queue",))
JOBS_FINISHED = Metric("edge_jobs_finished_total", "counter", "{job}", "Ends of jobs that workers reported.",
    ("queue", "outcome"))
JOBS_REQUEUED = Metric("edge_jobs_requeued_total", "counter", "{job}",
    "Offers that an API process put back in the queue: declined, disconnected, no_room, or registered (anew, without"
    " them). The scheduler returns those that nobody answered.",
    ("queue", "reason"))
JOBS_STALE = Metric("edge_jobs_stale_total", "counter", "{report}",
    "Reports about jobs that are not the worker's any more.", ("queue",))
HEARTBEATS = Metric("edge_heartbeats_total", "counter", "{heartbeat}", "Heartbeats heard.", ("transport",))
CHANNEL_MESSAGES = Metric("edge_channel_messages_total", "counter", "{message}", "Messages on channels.",
    ("direction", "type"))
CHANNEL_CONNECTIONS = Metric("edge_channel_connections", "gauge", "{connection}", "Open channels of this process.")
CHANNEL_DISCONNECTS = Metric("edge_channel_disconnects_total", "counter", "{connection}",
    "Channels that have ended: the worker left, was sent_away, refused or too slow; the channel was broken, or failed.",
    ("reason",))
LOG_BYTES_STORED = Metric("edge_log_bytes_total", "counter", "By", "Bytes of task log that were stored.")
LOG_GAPS = Metric("edge_log_gaps_total", "counter", "{request}", "Pieces of log that began beyond what is stored.")
LOG_UPLOADS = Metric("edge_log_uploads_total", "counter", "{upload}",
    "Attempts to upload a task's log to Airflow's remote log: done, failed, or found (it had been uploaded already).",
    ("outcome",))
LOG_RECORDS = Metric("edge_log_records_total", "counter", "{record}",
    "Lines of task logs that went to the collector as log records: sent, or refused by it.", ("outcome",))
OTLP_FORWARDED = Metric("edge_otlp_forwarded_bytes_total", "counter", "By",
    "Telemetry of workers that the collector took, before compression.", ("signal",))
OTLP_REJECTED = Metric("edge_otlp_rejected_total", "counter", "{request}",
    "Telemetry of workers that was not passed on.", ("signal", "reason"))
REQUEST_SECONDS = Metric("edge_api_request_duration_seconds", "histogram", "s",
    "Time to answer an HTTP request, by route.", ("route", "method", "status"), _FAST)

PROCESS_METRICS = (
    JOB_QUEUE_SECONDS, JOB_RUN_SECONDS, JOBS_ASSIGNED, JOBS_FINISHED, JOBS_REQUEUED, JOBS_STALE, HEARTBEATS,
    CHANNEL_MESSAGES, CHANNEL_CONNECTIONS, CHANNEL_DISCONNECTS, LOG_BYTES_STORED, LOG_GAPS, LOG_UPLOADS,
    LOG_RECORDS, OTLP_FORWARDED, OTLP_REJECTED, REQUEST_SECONDS,
)

# The scheduler, through Airflow's own metrics (statsd or OpenTelemetry, milliseconds as all of Airflow's timers).
EXECUTOR_SYNC = Metric("edge_executor.sync.duration", "histogram", "ms", "One turn of the executor's loop.")
EXECUTOR = (EXECUTOR_SYNC,)

# The worker, by OTLP.
CPU_TIME = Metric("system.cpu.time", "counter", "s", "Seconds that the CPUs spent in each mode.", (CPU_MODE,))
CPU_UTILIZATION = Metric("system.cpu.utilization", "gauge", "1", "Share of the CPUs' time in each mode.", (CPU_MODE,))
CPU_COUNT = Metric("system.cpu.logical.count", "updowncounter", "{cpu}", "Logical CPUs.")
MEMORY_USAGE = Metric("system.memory.usage", "updowncounter", "By", "Memory by state.", (MEMORY_STATE,))
MEMORY_LIMIT = Metric("system.memory.limit", "updowncounter", "By", "Memory that there is.")
MEMORY_UTILIZATION = Metric("system.memory.utilization", "gauge", "1", "Share of the memory by state.",
    (MEMORY_STATE,))
SWAP_USAGE = Metric("system.paging.usage", "updowncounter", "By", "Swap by state.", (PAGING_STATE,))
FILESYSTEM_USAGE = Metric("system.filesystem.usage", "updowncounter", "By", "Space of the state folder's file system.",
    (DEVICE, MOUNTPOINT, FILESYSTEM_STATE))
FILESYSTEM_LIMIT = Metric("system.filesystem.limit", "updowncounter", "By", "Size of the state folder's file system.",
    (DEVICE, MOUNTPOINT))
DISK_IO = Metric("system.disk.io", "counter", "By", "Bytes read from and written to disks.",
    (DEVICE, DISK_DIRECTION))
NETWORK_IO = Metric("system.network.io", "counter", "By", "Bytes received and sent.",
    (INTERFACE, NETWORK_DIRECTION))
UPTIME = Metric("system.uptime", "gauge", "s", "Time since the machine was started.")
LOAD_1 = Metric("edge.worker.load.1m", "gauge", "{thread}", "Load of the host over one minute.")
LOAD_5 = Metric("edge.worker.load.5m", "gauge", "{thread}", "Load of the host over five minutes.")
DAEMON_CPU = Metric("process.cpu.time", "counter", "s", "CPU that the daemon used.", (CPU_MODE,))
DAEMON_MEMORY = Metric("process.memory.usage", "updowncounter", "By", "Memory that the daemon holds.")
DAEMON_THREADS = Metric("process.thread.count", "updowncounter", "{thread}", "Threads of the daemon.")
DAEMON_FILES = Metric("process.unix.file_descriptor.count", "updowncounter", "{file_descriptor}",
    "Files and sockets that the daemon has open.")
JOBS_CPU = Metric("edge.job.cpu.time", "counter", "s", "CPU that the processes of jobs used.", (QUEUE,))
JOBS_MEMORY = Metric("edge.job.memory.usage", "updowncounter", "By", "Memory that the processes of jobs hold.",
    (QUEUE,))
JOBS_PROCESSES = Metric("edge.job.processes", "updowncounter", "{process}", "Processes of jobs.", (QUEUE,))
HEARTBEAT_SECONDS = Metric("edge.worker.heartbeat.duration", "histogram", "s", "From a heartbeat to its answer.",
    (RESULT,), _FAST)
LAUNCH_SECONDS = Metric("edge.job.launch.duration", "histogram", "s", "From the order to the running process.",
    (JOB_LAUNCH_MODE, RESULT), _FAST)
LOG_BACKLOG = Metric("edge.worker.log.backlog", "updowncounter", "By", "Task log that the Edge API does not have yet.")
OUTBOX_SIZE = Metric("edge.worker.outbox.size", "updowncounter", "By", "Telemetry that waits to be sent.")
OUTBOX_DROPPED = Metric("edge.worker.outbox.dropped", "counter", "{item}", "Payloads of telemetry that were dropped.",
    (SIGNAL, REASON))
RECONNECTS = Metric("edge.worker.reconnects", "counter", "{connection}", "Registrations after the first.")
FACTS = Metric("edge.worker.fact.value", "gauge", "{fact}", "A number that the user's own function returned.", (FACT,))

WORKER = (
    CPU_TIME, CPU_UTILIZATION, CPU_COUNT, MEMORY_USAGE, MEMORY_LIMIT, MEMORY_UTILIZATION, SWAP_USAGE, FILESYSTEM_USAGE,
    FILESYSTEM_LIMIT, DISK_IO, NETWORK_IO, UPTIME, LOAD_1, LOAD_5, DAEMON_CPU, DAEMON_MEMORY, DAEMON_THREADS,
    DAEMON_FILES, JOBS_CPU, JOBS_MEMORY, JOBS_PROCESSES, HEARTBEAT_SECONDS, LAUNCH_SECONDS, LOG_BACKLOG, OUTBOX_SIZE,
    OUTBOX_DROPPED, RECONNECTS, FACTS,
)

# The worker, to those on its machine: at /metrics of its health port.
LOCAL_INFO = Metric("edge_daemon_info", "gauge", "1", "Name and versions of the daemon; always 1.",
    ("worker", "version", "airflow_version", "python_version"))
LOCAL_START = Metric("edge_daemon_start_timestamp_seconds", "gauge", "s",
    "When the daemon was started, in seconds since 1970.")
LOCAL_LIVE = Metric("edge_daemon_live", "gauge", "1", "1 while all loops turn that must.")
LOCAL_READY = Metric("edge_daemon_ready", "gauge", "1", "1 while the daemon takes jobs.")
LOCAL_HEALTH = Metric("edge_daemon_health_level", "gauge", "1",
    "Health of the host and of the user's own function: 20 is good, 30 a warning, 40 an error.")
LOCAL_MAINTENANCE = Metric("edge_daemon_maintenance", "gauge", "1", "1 while the daemon is in maintenance.")
LOCAL_LEAVING = Metric("edge_daemon_leaving", "gauge", "1", "1 while the daemon finishes its jobs to leave.")
LOCAL_CONTACT_AGE = Metric("edge_daemon_contact_age_seconds", "gauge", "s",
    "Time since the Edge API answered a heartbeat; missing before the first answer.")
LOCAL_CLOCK_SKEW = Metric("edge_daemon_clock_ahead_seconds", "gauge", "s", "This clock minus the server's.")
LOCAL_JOBS = Metric("edge_daemon_jobs", "gauge", "{job}", "Jobs that run, or of which the report or the log is unsent.")
LOCAL_SLOTS = Metric("edge_daemon_slots", "gauge", "{slot}", "Slots for jobs.")
LOCAL_SLOTS_FREE = Metric("edge_daemon_slots_free", "gauge", "{slot}", "Slots that may be filled now.")
LOCAL_LOG_BACKLOG = Metric("edge_daemon_unsent_log_bytes", "gauge", "By",
    "Task log that the Edge API does not have yet.")
LOCAL_OUTBOX = Metric("edge_daemon_unsent_telemetry_bytes", "gauge", "By", "Telemetry that waits to be sent.")
LOCAL_DROPPED = Metric("edge_daemon_dropped_telemetry_total", "counter", "{item}",
    "Payloads of telemetry that were dropped since the start.", ("signal", "reason"))
LOCAL_LOOP = Metric("edge_daemon_loop_age_seconds", "gauge", "s",
    "How long the loop has been doing what it does now.", ("loop",))

LOCAL = (
    LOCAL_INFO, LOCAL_START, LOCAL_LIVE, LOCAL_READY, LOCAL_HEALTH, LOCAL_MAINTENANCE, LOCAL_LEAVING,
    LOCAL_CONTACT_AGE, LOCAL_CLOCK_SKEW, LOCAL_JOBS, LOCAL_SLOTS, LOCAL_SLOTS_FREE, LOCAL_LOG_BACKLOG, LOCAL_OUTBOX,
    LOCAL_DROPPED, LOCAL_LOOP,
)

METRICS = (*FLEET, *PROCESS_METRICS, *EXECUTOR, *WORKER, *LOCAL)
