"""Where a log is read: Airflow's own FileTaskHandler shows every line once, wherever its bytes are."""

from __future__ import annotations

from dataclasses import replace
from pkgutil import resolve_name
from uuid import UUID

import pytest
from airflow import logging_config as airflows_logging
from airflow.configuration import conf
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.tasklog import LogTemplate
from airflow.providers_manager import ProvidersManager
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow_database import use
from airflow_rows import put_task_instance
from rows import NOW, claim, queue_job, register
from sqlalchemy import select

from edge_otel.api.log_files import Writer
from edge_otel.errors import ConfigurationInvalid
from edge_otel.executor import EdgeExecutor
from edge_otel.models import jobs, logs
from edge_otel.models.tables import Job, Log, Worker
from edge_otel.remote_log import EdgeRemoteLog
from edge_otel.settings import LogFolder
from edge_otel.state import JobState

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True),
    pytest.mark.usefixtures("no_task_instances"),
    # Airflow's reader leaves the files that it opens to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]


class Sink:
    """A remote log as Airflow's providers have them; what it has is its ``text``."""

    processors = ("one",)

    def __init__(self) -> None:
        self.text: str | None = None
        self.uploaded: list[str] = []

    def upload(self, path, ti=None):
        self.uploaded.append(path)

    def read(self, relative_path, ti):
        return ["sink"], None if self.text is None else [self.text]


class Site:
    """One API server with a disk, a task instance, and the two ways in which its log is read."""

    def __init__(self, database, folder, monkeypatch):
        self.database = database
        self.folder = folder
        self.remote = EdgeRemoteLog(folder)
        self.handler = FileTaskHandler(str(folder.base))
        monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(folder.base))
        monkeypatch.setattr(FileTaskHandler, "executor_instances", {"_default_executor": EdgeExecutor(parallelism=8)})
        monkeypatch.setattr(airflows_logging, "get_remote_task_log", lambda: self.remote)
        with database() as session:
            if session.scalar(select(LogTemplate.id)) is None:
                template = conf.get("logging", "log_filename_template")
                session.add(LogTemplate(filename=template, elasticsearch_id=""))
                session.flush()
            ti = put_task_instance(session, "queued", hostname="")
            self.id = str(ti.id)
            self.path = self.handler._render_filename(ti, 1, session=session)
            register(session, "w", NOW)

    @property
    def file(self):
        """Where the log goes on this server's disk."""
        return self.folder.base / self.path

    def run(self, text, *, state="success", end=True, here=True, **said):
        """Let the task log this as a job of its own claim; ``here``: this server writes the file at its end."""
        with self.database() as session:
            ti = self._instance(session)
            queue_job(session, NOW, id=self.id, log_path=self.path, try_number=ti.try_number)
            job = claim(session, session.get(Worker, "w"), NOW)
            for start in range(0, len(text), 7):
                logs.append(session, job, job.claim, start, text[start : start + 7])
            jobs.record_report(job, JobState.RUNNING, job.claim, NOW)
            if end:
                jobs.record_report(job, JobState.SUCCESS, job.claim, NOW, **said)
        if end:
            folder = self.folder if here else replace(self.folder, base=self.folder.base.parent / "another")
            Writer(folder).finalise(self.id)
        self.become(state)

    def try_again(self, number):
        """Let the task be queued for another try under its id, as one that was lost before it ran."""
        with self.database() as session:
            ti = self._instance(session)
            ti.try_number, ti.state = number, "queued"
            self.path = self.handler._render_filename(ti, number, session=session)

    def become(self, state):
        """Let the task instance have this state."""
        with self.database() as session:
            self._instance(session).state = state

    def _instance(self, session):
        return session.scalar(select(TaskInstance).where(TaskInstance.id == UUID(self.id)))

    def uploaded(self):
        """Let the table say that the log was uploaded."""
        with self.database() as session:
            session.get(Log, self.id).upload = "done"

    def messages(self, *, history=None, number=None):
        """Return what Airflow shows: where the log comes from, and its lines."""
        with self.database() as session:
            ti = self._instance(session)
            shown = ti
            if history is not None:
                session.add(shown := TaskInstanceHistory(ti, state=history))
                session.flush()
            stream, _ = self.handler.read(shown, number or ti.try_number)
            texts = [message.event for message in stream]
            session.rollback()
        end = texts.index("::endgroup::")
        return texts[1:end], texts[end + 1 :]

    def lines(self, **which):
        """Return the lines that Airflow shows."""
        return self.messages(**which)[1]


@pytest.fixture
def site(database, tmp_path, monkeypatch):
    """A site whose store is the only home of logs."""
    return Site(database, LogFolder(tmp_path / "disk", 0o755, 0o644), monkeypatch)


def test_a_running_tasks_log_is_shown_up_to_its_last_whole_line(site):
    site.run(b"one\ntwo\nthr", state="running", end=False)
    assert site.messages() == (["Edge worker w, live"], ["one", "two"])


@pytest.mark.parametrize("here", [True, False])
def test_a_task_that_was_deferred_and_runs_again_has_both_parts_once(site, here):
    # Airflow sorts what comes from several places by the times in it.
    lines = [f'{{"timestamp":"2026-01-01T00:00:0{number}Z","event":"{number}"}}\n'.encode() for number in range(4)]
    site.run(b"".join(lines[:2]), here=here)
    site.run(b"".join(lines[2:]), state="running", end=False)
    assert site.file.exists() == here
    assert site.lines() == ["0", "1", "2", "3"]


def test_without_times_each_line_of_a_resumed_task_is_there_once_too(site):
    site.run(b"before\nunfinished")
    site.run(b"after\n", state="running", end=False)
    assert sorted(site.lines()) == ["after", "before", "unfinished"]
    site.file.unlink()
    assert site.lines() == ["before", "unfinished", "after"]


@pytest.mark.parametrize("state", ["deferred", "up_for_reschedule", "queued"])
@pytest.mark.parametrize("here", [True, False])
def test_a_task_between_two_runs_has_its_log_once(site, state, here):
    site.run(b"one\ntwo\n", state=state, here=here)
    assert site.lines() == ["one", "two"]
    if here:
        site.file.write_text("one\n")
        assert site.lines() == ["one", "two"], "another server had the rest"


@pytest.mark.parametrize("state", ["up_for_retry", None])
@pytest.mark.parametrize("here", [True, False])
def test_a_task_that_is_to_be_retried_or_was_cleared_has_the_log_of_its_try(site, state, here):
    site.run(b"one\ntwo\n", state="running", here=here)
    with site.database() as session:
        # As Airflow does it: a new id, and the number of the try rises when the task is scheduled.
        ti = site._instance(session)
        ti.prepare_db_for_next_try(session)
        ti.state = state
        session.flush()
        assert str(ti.id) != site.id
        site.id = str(ti.id)
    assert site.lines() == ["one", "two"]


def test_a_finished_tasks_log_is_read_from_the_file_where_there_is_one_and_else_from_the_store(site):
    site.run(b"one\ntwo\n")
    assert site.messages() == ([str(site.file)], ["one", "two"])
    site.file.unlink()
    assert site.messages() == (["edge-otel: the database"], ["one", "two"])
    site.file.write_text("one\n")
    assert site.lines() == ["one", "two"], "another server had the rest"
    with site.database() as session:
        session.delete(session.get(Job, site.id))
    assert site.lines() == ["one", "two"], "the job is gone, its log is not"


@pytest.mark.parametrize("here", [True, False])
def test_what_a_trigger_logged_beside_the_file_is_shown_once(site, here):
    site.run(b"one\n", here=here)
    beside = site.file.with_name(f"{site.file.name}.trigger.7.log")
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text("triggered\n")
    (site.file.parent / f"{site.file.name}.link").symlink_to("/etc/hostname")
    assert site.lines() == ["one", "triggered"]


def test_an_earlier_try_is_read_by_the_id_that_it_had(site):
    site.run(b"one\n", here=False)
    assert site.lines(history="failed") == ["one"]


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("state", ["success", "up_for_retry"])
def test_two_tries_under_one_id_are_read_each_by_its_path(site, here, state):
    site.run(b"one\n", here=here)
    site.try_again(2)
    site.run(b"two\n", here=here, state="deferred")
    site.run(b"more\n", here=here, state=state)
    assert (site.lines(number=1), site.lines(number=2)) == (["one"], ["two", "more"])
    assert site.lines(history="failed") == ["two", "more"]


def test_runs_that_were_not_whole_in_the_file_are_shown_once_when_more_of_them_has_come(site):
    runs = [[f"{run}-{number}" for number in range(10)] for run in "abc"]
    first, second, third = ("".join(f"{line}\n" for line in run).encode() for run in runs)
    site.run(first[:18], state="deferred", log_length=len(first))
    site.run(second, state="deferred", log_length=len(second))
    site.run(third, state="running", end=False)
    with site.database() as session:
        logs.append(session, jobs.lock(session, site.id), 1, 18, first[18:])
    assert sorted(line for line in site.lines() if "edge-otel" not in line) == sorted(runs[0] + runs[1] + runs[2])


def test_what_was_missing_at_this_server_is_not_said_when_another_one_has_completed_the_log(site):
    site.run(b"one\n", log_length=9)
    assert any("have not come" in line for line in site.lines())
    with site.database() as session:
        jobs.lock(session, site.id).log_ends = {"1": [4, None]}
    Writer(replace(site.folder, base=site.folder.base.parent / "another")).finalise(site.id)
    assert site.lines() == ["one"]


def test_that_no_byte_has_come_of_a_log_is_said(site):
    site.run(b"", here=False, log_length=9)
    assert "edge-otel: bytes 0 to 8 have not come from edge worker w" in site.messages()[0]


def test_what_is_missing_of_a_log_is_said(site):
    site.run(b"one\n", here=False, log_length=9)
    assert site.messages() == (
        ["edge-otel: bytes 4 to 8 have not come from edge worker w", "edge-otel: the database"],
        ["one"],
    )


@pytest.mark.parametrize(
    "text",
    [
        b"\x1b[31mred\x1b[0m \x00 \x07 nul\n\n\nplain\n",
        b"progress 1\rprogress 2\r\nnext\n",
        '{"timestamp":"2026-01-01T00:00:00Z","event":"gr\u00fcn \u2028 \\u0000"}\nplain\u0085\x0b\x0c\n'.encode(),
        b'{"timestamp":"2026-01-01T00:00:00Z","event":"twice"}\n' * 2 + b"no newline at the end",
        b"x" * 3_000_000 + b"\nshort\n",
    ],
    ids=["ansi and nul", "carriage returns", "unicode", "equal lines", "huge line"],
)
def test_lines_come_out_as_airflow_shows_them_from_a_file(site, text):
    site.run(b"")
    with site.database() as session:
        logs.append(session, jobs.lock(session, site.id), 1, 0, text)
    Writer(site.folder).finalise(site.id)
    from_file = site.lines()
    site.file.unlink()
    assert site.lines() == from_file


def test_bytes_that_are_no_text_are_shown_escaped(site):
    site.run(b"\xff\xfe\n\xc3", here=False)
    assert site.lines() == ["\\xff\\xfe", "\\xc3"]


def test_a_log_that_was_uploaded_is_read_from_the_sink_and_from_the_store_while_that_is_down(site):
    site.remote = EdgeRemoteLog(site.folder, sink := Sink())
    sink.text = "of the sink\n"
    site.run(b"one\n", here=False)
    assert site.lines() == ["one"], "not uploaded yet"
    site.uploaded()
    assert site.messages() == (["sink"], ["of the sink"])
    sink.text = None
    assert site.lines() == ["one"]
    sink.text = "of the sink\n"
    with site.database() as session:
        session.delete(session.get(Log, site.id))
    assert site.lines() == ["of the sink"], "the store was purged"


def test_what_other_executors_hand_over_goes_to_the_wrapped_log(site):
    sink = Sink()
    EdgeRemoteLog(site.folder, sink).upload("path", None)
    EdgeRemoteLog(site.folder).upload("path", None)
    assert (sink.uploaded, EdgeRemoteLog(site.folder, sink).processors) == (["path"], ("one",))
    assert site.remote.processors == ()


def test_a_database_that_is_away_is_said_and_nothing_raised(site, database_url):
    site.run(b"one\n", here=False)
    with site.database() as session:
        ti = site._instance(session)
        session.expunge(ti)
    use("sqlite:////no/such/folder/airflow.db")
    try:
        sources, found = site.remote.read(site.path, ti)
    finally:
        use(database_url)
    assert found is None
    assert sources[0].startswith("edge-otel: the log store cannot be reached: ")


def test_an_airflow_that_finds_remote_logs_by_their_providers_finds_ours(site, monkeypatch):
    def made(folder):
        monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", folder)
        found = ProvidersManager().remote_logging_handler_by_scheme(folder.partition(":")[0])
        return resolve_name(found.classpath).from_config()

    assert made("edge://").inner is None
    with pytest.raises(ConfigurationInvalid, match="no provider"):
        made("edge+s3://bucket/logs")
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "edge+edge://")
    assert EdgeRemoteLog.from_config().inner.inner is None
