"""EdgeExecutor: puts workloads in the job table and tells the scheduler what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor
from airflow.models.callback import CallbackKey
from airflow.providers.common.compat.sdk import Stats

from edge_otel import log_text
from edge_otel.models import jobs, logs, task_instances, upkeep, workers
from edge_otel.models.database import DatabaseFailure, check_migrated, passing
from edge_otel.models.session import Session, hasty_session, new_session
from edge_otel.models.tables import Job
from edge_otel.reconcile import explain, outcome, silent_since
from edge_otel.settings import LogFolder, Settings
from edge_otel.state import FINISHED, JobState
from edge_otel.telemetry import central, central_spans, names
from edge_otel.telemetry.spans import Finished
from edge_otel.workload import MAX_WORKLOAD, job_of

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey
    from airflow.models.taskinstance import TaskInstance

# Rows are found by the time that another host wrote into them. The window covers a transaction that commits late and
# clocks that differ; what falls out of it is found by the slow look at every job of this executor.
_OVERLAP = timedelta(seconds=10)
_CARE_INTERVAL = timedelta(seconds=5)
_RECONCILE_INTERVAL = timedelta(seconds=60)
# A key is tracked before the scheduler commits. A row that is still missing after this was rolled back, or revoked.
_COMMIT_PATIENCE = timedelta(seconds=60)


@dataclass
class _Tracked:
    """A workload of this executor that is not finished yet."""

    key: WorkloadKey
    since: datetime
    running: bool = False


class EdgeExecutor(BaseExecutor):
    """Runs tasks, callbacks and connection tests on edge workers.

    A workload waits in ``queued_tasks`` (or its siblings) until a worker runs it and is in ``running`` from then on,
    so Airflow's own slot counts and gauges are true.
    """

    supports_multi_team = True
    supports_callbacks = True
    supports_connection_test = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = Settings.read(self.conf)
        self._log_folder = LogFolder.read(self.conf)
        self._spans = central.recorder("edge-executor", central.collector(self._settings, os.environ))
        self._tracked: dict[str, _Tracked] = {}
        self._seen_until: datetime | None = None
        self._cared_at: datetime | None = None
        self._reconciled_at: datetime | None = None

    def start(self) -> None:
        """Check that the database is migrated (raise NotMigrated if not), and take over callbacks on their way."""
        with new_session() as session:
            check_migrated(session)
            callbacks = jobs.callbacks(session, self.team_name)
        # Now rather than with the first task.
        self._spans.load()
        # Airflow hands the tasks of a dead scheduler over, but not its callbacks.
        for row in callbacks:
            key = CallbackKey(row.id)
            self._track(row.id, key, datetime.now(UTC))
            self._queue_of(key)[key] = None
        self._follow(callbacks)

    def queue_workload(self, workload: ExecutorWorkload, session: Session) -> None:
        """Put a workload in the job table, in the scheduler's own transaction."""
        now = datetime.now(UTC)
        job = job_of(workload, self.team_name, self.conf.get_mandatory_value("operators", "default_queue"))
        if len(job.workload) > MAX_WORKLOAD:
            why = f"The workload has {len(job.workload)} characters; edge workers take {MAX_WORKLOAD}."
            self.log.error("Job %s is not queued. %s", job.id, why)
            self.fail(workload.key, why)
            return
        jobs.queue(session, job, now)
        self._track(job.id, workload.key, now)
        self._queue_of(workload.key)[workload.key] = workload
        self._spans.record(central_spans.sent(job, now, datetime.now(UTC)))

    def trigger_tasks(self, open_slots: int) -> None:
        """Do nothing: workers take the jobs, in the order of the table."""

    def trigger_connection_tests(self) -> None:
        """Do nothing: workers take the jobs, in the order of the table."""

    def sync(self) -> None:
        """Read what changed, tell the scheduler, and now and then take care of what nobody reports."""
        now = datetime.now(UTC)
        tags = {"team_name": self.team_name} if self.team_name else {}
        with Stats.timer(names.EXECUTOR_SYNC.name, tags=tags):
            if _due(self._cared_at, _CARE_INTERVAL, now):
                self._take_care(now)
                self._cared_at = now
            if not self._tracked:
                self._seen_until = None
                return
            with new_session() as session:
                self._read_changes(session, now)

    def _read_changes(self, session: Session, now: datetime) -> None:
        changes = jobs.changed_since(session, self.team_name, (self._seen_until or now) - _OVERLAP)
        self._follow(changes)
        # Never beyond this host's clock: another's may be ahead, and rows of a third would be missed.
        self._seen_until = min(now, max((change.changed_at for change in changes), default=self._seen_until or now))
        if _due(self._reconciled_at, _RECONCILE_INTERVAL, now):
            self._reconcile(session, now)
            self._reconciled_at = now

    def _follow(self, changes: Iterable[jobs.JobChange]) -> None:
        for change in changes:
            tracked = self._tracked.get(change.id)
            if tracked is None:
                continue
            state = JobState(change.state)
            if state is JobState.RUNNING and not tracked.running:
                tracked.running = True
                self._queue_of(tracked.key).pop(tracked.key, None)
                self.running.add(tracked.key)
                self.running_state(tracked.key, change.worker)
            elif state in FINISHED:
                self._forget(change.id)
                if state is JobState.SUCCESS:
                    self.success(tracked.key)
                else:
                    self.fail(tracked.key, change.error)

    def _reconcile(self, session: Session, now: datetime) -> None:
        found = jobs.with_ids(session, self._tracked)
        self._follow(found)
        present = {row.id for row in found}
        for job_id, tracked in list(self._tracked.items()):
            if job_id not in present and now - tracked.since > _COMMIT_PATIENCE:
                self.log.warning("Job %s of %s is not in the table any more: forgotten.", job_id, tracked.key)
                self._forget(job_id)

    def _take_care(self, now: datetime) -> None:
        """Care in a transaction of its own; what the database cannot do now must not end the scheduler."""
        try:
            with hasty_session() as session:
                orphans = self._care(session, now)
        except DatabaseFailure as failure:
            if not passing(failure):
                raise
            self.log.warning("The care for jobs and workers failed, and is tried again: %s", failure)
            return
        for orphan in orphans:
            self._spans.record(orphan)

    def _care(self, session: Session, now: datetime) -> list[Finished]:
        """Settle what nobody reports: silent workers, offers not accepted, jobs of dead workers, old rows."""
        settings = self._settings
        for name in workers.expire_silent(session, settings.heartbeat_interval, now):
            self.log.warning("Worker %s has been silent for too long and counts as gone.", name)
        if returned := upkeep.return_expired_offers(session, self.team_name, now):
            self.log.warning("%d jobs were offered and not accepted in time: back in the queue.", returned)
        orphans = self._settle_unreported(session, now)
        self._purge(session, now)
        workers.purge_events(session, now - timedelta(days=settings.worker_event_retention_days))
        return orphans

    def _purge(self, session: Session, now: datetime) -> None:
        settings = self._settings
        old = upkeep.outdated(
            session,
            self.team_name,
            now - timedelta(minutes=settings.job_success_purge),
            now - timedelta(minutes=settings.job_fail_purge),
        )
        # A task that is deferred goes on under its id, and its log with it.
        kept = task_instances.coming_back(session, old)
        upkeep.keep(session, kept, now)
        upkeep.delete_finished(session, [job_id for job_id in old if job_id not in kept], now)

    def _settle_unreported(self, session: Session, now: datetime) -> list[Finished]:
        """End the jobs that nobody will report, and return their spans, which count once this is committed."""
        quiet_since = silent_since(now, self._settings.heartbeat_interval)
        unreported = upkeep.running_unreported(session, self.team_name, quiet_since)
        tasks = task_instances.states(session, [job.id for job in unreported if job.kind == "task"])
        orphans = []
        for job in unreported:
            running = job.with_task(*tasks.get(job.id, (None, None)))
            state = outcome(running, now, now - quiet_since)
            if state is None:
                continue
            why = explain(running)
            if settled := upkeep.settle(session, job.id, job.claim, state, why, now):
                self.log.warning("Job %s settled as %s. %s", job.id, state, why)
                reason = "worker_gone" if running.worker_gone else "not_reported"
                orphans.append(central_spans.orphaned(settled, state, reason, now, why))
        return orphans

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Take a task out of the job table; a worker that has it learns that its claim is stale."""
        with new_session() as session:
            upkeep.withdraw(session, str(ti.id), datetime.now(UTC))
        self._forget(str(ti.id))
        self.queued_tasks.pop(ti.key, None)
        self.running.discard(ti.key)

    def fail_connection_test(self, key: Any) -> None:
        """Take a connection test that the scheduler gave up out of the job table."""
        super().fail_connection_test(key)
        with new_session() as session:
            upkeep.withdraw(session, key.id, datetime.now(UTC))
        self._forget(key.id)

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Take over the tasks of a dead scheduler whose jobs are in the table; return the others.

        A job that finished meanwhile is taken over too: its end is what this scheduler tells Airflow next.
        """
        now = datetime.now(UTC)
        with new_session() as session:
            found = jobs.with_ids(session, [str(ti.id) for ti in tis])
        present = {row.id for row in found}
        adopted = [ti for ti in tis if str(ti.id) in present]
        for ti in adopted:
            self._track(str(ti.id), ti.key, now)
            # The workload stays in the table; here the key alone counts.
            self.queued_tasks[ti.key] = None
        self._follow(found)
        return [ti for ti in tis if str(ti.id) not in present]

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], Iterable[str]]:
        """Return what a running task has logged so far, in pieces that Airflow only iterates over, but for what is in
        a file that it reads beside them: what the task logged before it was deferred."""
        if ti.try_number != try_number:
            return [], []
        with new_session() as session:
            job = session.get(Job, str(ti.id))
            if job is None:
                return [], []
            lengths = logs.lengths(session, job.id)
            sources = [f"Edge worker {job.worker}, live"]
            held = log_text.held(job.id, lengths, self._log_folder.base / (job.log_path or job.id))
        return sources, log_text.stored(str(ti.id), held, whole=False) if held != lengths else []

    def end(self) -> None:
        """Leave the jobs to the workers and to the next scheduler."""
        self._spans.close()

    def terminate(self) -> None:
        """Leave the jobs to the workers and to the next scheduler."""
        self._spans.close()

    @staticmethod
    def get_cli_commands() -> list[Any]:
        """Return nothing: the provider's metadata names the commands."""
        return []

    def _track(self, job_id: str, key: WorkloadKey, now: datetime) -> None:
        self._tracked[job_id] = _Tracked(key, now)

    def _forget(self, job_id: str) -> None:
        tracked = self._tracked.pop(job_id, None)
        if tracked is not None:
            self._queue_of(tracked.key).pop(tracked.key, None)
            self.running.discard(tracked.key)

    def _queue_of(self, key: WorkloadKey) -> dict[Any, Any]:
        queue: dict[Any, Any] = self.queued_tasks
        if type(key).__name__ == "CallbackKey":
            queue = self.queued_callbacks
        elif type(key).__name__ == "ConnectionTestKey":
            queue = self.queued_connection_tests
        return queue


def _due(last: datetime | None, interval: timedelta, now: datetime) -> bool:
    return last is None or now - last >= interval
