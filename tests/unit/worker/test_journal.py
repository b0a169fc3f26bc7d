"""What the state folder keeps, and how it is read again."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_worker.faults import BadSetting
from edge_worker.journal import JobFolder, Journal, Maintenance, Started, Ticket, Verdict
from edge_worker.processes import alive, identity
from edge_worker.spans import hand_over
from edge_worker.task_run import Claimed, claim
from edge_worker.task_run import identity as own_identity
from edge_worker.tasklog import append

from edge_otel.telemetry.context import child_of

TICKET = Ticket("00000000-0000-0000-0000-000000000001", 2, "d", "t", "r", -1, 1, 1, "q", "a/b.log")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "state")
    found.lock()
    yield found
    found.unlock()


def test_what_is_written_is_read_again(journal: Journal) -> None:
    folder = journal.folder(TICKET.id, 2)
    folder.open(TICKET, "{}")
    verdict = Verdict(True, 0, None, 3, "ab", 1.5)
    folder.save(verdict)
    (again,) = journal.jobs()
    assert (again.ticket(), again.verdict(), again.started(), again.result()) == (TICKET, verdict, None, None)


def test_folder_and_workload_are_the_owners_alone(journal: Journal) -> None:
    folder = journal.folder(TICKET.id, 2)
    folder.open(TICKET, "{}")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder.path / "workload.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 1}', '{"other": 1}', "[" * 10**5])
def test_corrupt_ticket_is_a_value_error(journal: Journal, text: str) -> None:
    folder = journal.folder(TICKET.id, 2)
    folder.open(TICKET, "{}")
    (folder.path / "offer.json").write_text(text)
    with pytest.raises(ValueError, match=r"\S"):
        folder.ticket()


def test_what_a_newer_or_an_older_daemon_wrote_is_read(journal: Journal) -> None:
    folder = journal.folder(TICKET.id, 2)
    folder.open(TICKET, "{}")
    folder.save(verdict := Verdict(True, 0, None, 3, "ab", 1.5, outcome="success"))
    for name in ("offer.json", "report.json"):
        newer = json.loads((folder.path / name).read_text()) | {"of_a_later_version": [1]}
        (folder.path / name).write_text(json.dumps(newer))
    assert (folder.ticket(), folder.verdict()) == (TICKET, verdict)
    needed = ("id", "claim", "dag_id", "task_id", "run_id", "map_index", "try_number", "slots", "queue")
    (folder.path / "offer.json").write_text(json.dumps({name: getattr(TICKET, name) for name in needed}))
    assert folder.ticket().id == TICKET.id
    (journal.path / "maintenance.json").write_text('{"comment": "c", "origin": "local", "until": 7}')
    assert journal.maintenance() == Maintenance("c", "local")


@pytest.mark.parametrize("path", ["../x.log", "/etc/passwd", "a/../../b", ".", None, ""])
def test_log_is_never_outside_its_folder(tmp_path: Path, path: str | None) -> None:
    from dataclasses import replace

    assert JobFolder(tmp_path).log_file(replace(TICKET, log_path=path)) is None
    assert JobFolder(tmp_path).log_file(TICKET) == tmp_path / "logs/a/b.log"


def test_second_lock_is_refused_until_the_first_is_given_back(journal: Journal) -> None:
    second = Journal(journal.path)
    with pytest.raises(BadSetting, match=f"pid {os.getpid()}"):
        second.lock()
    journal.unlock()
    second.lock()
    second.unlock()


def test_folders_that_could_not_be_removed_are_removed_later(journal: Journal) -> None:
    found, gone = journal.folder(TICKET.id, 2), journal.folder(TICKET.id, 3)
    found.open(TICKET, "{}")
    jobs, elsewhere = journal.path / "jobs", journal.path / "elsewhere"
    jobs.rename(elsewhere)
    for folder in (found, gone):
        journal.forget(folder)
    elsewhere.rename(jobs)
    assert list(jobs.iterdir()) == [found.path]
    journal.sweep()
    assert (list(jobs.iterdir()), journal.left) == ([], set())


def test_maintenance_is_remembered_and_forgotten(journal: Journal) -> None:
    assert journal.maintenance() is None
    journal.remember(Maintenance("c", "admin"))
    assert journal.maintenance() == Maintenance("c", "admin")
    journal.remember(None)
    assert journal.maintenance() is None


def test_unreadable_maintenance_is_maintenance(journal: Journal) -> None:
    (journal.path / "maintenance.json").write_text("{")
    assert journal.maintenance() is not None


def test_folder_is_claimed_once(tmp_path: Path) -> None:
    claim(tmp_path)
    with pytest.raises(Claimed):
        claim(tmp_path)
    assert JobFolder(tmp_path).started() is not None
    assert [path.name for path in tmp_path.iterdir()] == ["process.json"]


def test_process_is_told_from_a_later_one_with_its_pid() -> None:
    assert own_identity() == identity(os.getpid())
    assert alive(Started(os.getpid(), identity(os.getpid()), 0))
    assert not alive(Started(os.getpid(), "another:1", 0))
    assert identity(2**22 + 1) == ""


def test_appended_events_begin_a_line_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.log"
    append(path, ["one"])
    with path.open("ab") as handle:
        handle.write(b"half")
    append(path, ["two", "three"])
    lines = path.read_bytes().splitlines()
    assert lines[1] == b"half"
    assert [json.loads(lines[i])["event"] for i in (0, 2, 3)] == ["one", "two", "three"]


def test_span_is_a_child_of_the_carrier_with_its_flags_and_state() -> None:
    parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    child = child_of(parent)
    version, trace, span, flags = child["traceparent"].split("-")
    assert (version, trace, flags) == ("00", "0af7651916cd43dd8448eb211c80319c", "01")
    assert span != "b7ad6b7169203331"
    assert child["tracestate"] == "a=b"
    assert child_of({})["traceparent"].endswith("-00")
    assert child_of({"traceparent": "nonsense"})["traceparent"].endswith("-00")


def test_task_is_handed_the_span_where_it_had_a_carrier() -> None:
    span = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    given = {"ti": {"id": 1, "context_carrier": {"traceparent": "x"}}}
    assert hand_over(given, span)["ti"] == {"id": 1, "context_carrier": span}
    assert given["ti"]["context_carrier"] == {"traceparent": "x"}
    for without in ({"ti": {"id": 1}}, {"callback": {}}, {"ti": {"context_carrier": None}}):
        assert hand_over(without, span) == without
