"""Reading a log while something is wrong: a file of another run, a remote log that is down or unfit."""

from __future__ import annotations

import logging

import pytest
from airflow import logging_config as airflows_logging
from test_remote_log import Sink, Site, pytestmark  # noqa: F401 - on the same databases

from edge_otel import remote_log
from edge_otel.errors import ConfigurationInvalid
from edge_otel.remote_log import EdgeRemoteLog
from edge_otel.settings import LogFolder


@pytest.fixture
def site(database, tmp_path, monkeypatch):
    return Site(database, LogFolder(tmp_path / "logs", 0o755, 0o644), monkeypatch)


@pytest.fixture
def leftover(site):
    """The file of a run that was deleted and made again under the same id."""
    site.file.parent.mkdir(parents=True)
    site.file.write_bytes(b"old run 1\nold run 2\nold run 3\n")


@pytest.mark.parametrize("ours", [True, False], ids=["edge://", "Airflow's defaults"])
def test_a_running_task_is_shown_whole_beside_the_file_of_an_earlier_run(site, leftover, ours):
    if not ours:
        site.remote = None
    site.run(b"new 1\nnew 2\n", state="running", end=False)
    # Lines without a time come in any order, as Airflow mixes what it has.
    assert [line for line in site.lines() if "new" in line] == ["new 1", "new 2"]


def test_a_finished_task_is_shown_instead_of_the_file_of_an_earlier_run(site, leftover):
    site.run(b"new 1\nnew 2\n", here=False)
    assert site.lines() == ["new 1", "new 2"]


def test_a_remote_log_that_raises_is_said_and_the_store_read(site, monkeypatch):
    sink = Sink()
    site.remote = EdgeRemoteLog(site.folder, sink)
    site.run(b"one\n", here=False)
    site.uploaded()

    def down(relative_path, ti):
        raise ConnectionError("the bucket is away")

    monkeypatch.setattr(sink, "read", down)
    assert site.lines() == ["one"]
    assert any("the bucket is away" in message for message in site.messages()[0])


@pytest.mark.parametrize("name", ["CloudWatchRemoteLogIO", "StackdriverRemoteLogIO", "HdfsRemoteLogIO"])
def test_a_remote_log_that_would_lose_what_it_is_given_gets_nothing(site, name, monkeypatch, caplog):
    unfit = type(name, (Sink,), {})()
    with pytest.raises(ConfigurationInvalid, match=f"{name} .*Use edge://"):
        EdgeRemoteLog(site.folder, unfit)
    monkeypatch.setattr(airflows_logging, "get_remote_task_log", lambda: unfit)
    with caplog.at_level(logging.WARNING):
        assert remote_log.sink() is None
    assert f"not uploaded: {name}" in caplog.text


@pytest.mark.parametrize(
    ("name", "options", "fit"),
    [
        ("ElasticsearchRemoteLogIO", {"write_stdout": True, "write_to_es": True}, False),
        ("ElasticsearchRemoteLogIO", {"write_stdout": False, "write_to_es": False}, False),
        ("ElasticsearchRemoteLogIO", {"write_stdout": False, "write_to_es": True}, True),
        ("OpensearchRemoteLogIO", {"write_stdout": False, "write_to_opensearch": False}, False),
        ("OpensearchRemoteLogIO", {"write_stdout": False, "write_to_opensearch": True}, True),
    ],
)
def test_a_remote_log_that_only_prints_what_it_is_given_gets_nothing(name, options, fit):
    assert (remote_log.unfit(type(name, (Sink,), options)()) is None) == fit
