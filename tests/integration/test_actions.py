"""What administrators have done to workers: each action, on one and on many, alone and while others are at it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from pydantic import TypeAdapter, ValidationError
from rows import NOW, history, register_as, report
from sqlalchemy import Engine, event, select

from edge_otel.actions import Action
from edge_otel.errors import DatabaseUnavailable
from edge_otel.models import audit, fleet, tokens, workers
from edge_otel.models.tables import Worker, WorkerEvent, WorkerLog
from edge_otel.operate import BATCH, carry_out
from edge_otel.selection import Selection
from edge_otel.state import WorkerState
from edge_otel.wire import LogLine

S = WorkerState
ACTION = TypeAdapter(Action)


def act(kind, *names, by="ann", dry_run=False, selection=None, **fields):
    """Do it, and return what became of each worker."""
    action = ACTION.validate_python({"kind": kind, **fields})
    chosen = Selection(names=names) if selection is None else Selection(**selection)
    did = carry_out(chosen, action, by=by, dry_run=dry_run)
    return {outcome.worker: (outcome.done, outcome.text) for outcome in did}


def stored(session, name="w"):
    """Return the worker as the database has it."""
    session.expire_all()
    return workers.get(session, name)


@contextmanager
def listening(said):
    """Add to ``said`` what databases are told."""

    def heard(connection, cursor, statement, *_):
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", heard)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", heard)


CASES = {
    "maintenance_on": (S.RUNNING, {"comment": "swap"}, "maintenance request", "maintenance on: swap"),
    "maintenance_on without a comment": (S.IDLE, {}, "maintenance request", "maintenance on: no comment"),
    "maintenance_on of one that is gone": (S.UNKNOWN, {"comment": "x"}, "offline maintenance", "maintenance on: x"),
    "maintenance_on again": (S.MAINTENANCE_MODE, {"comment": "y"}, "maintenance mode", "maintenance on: y"),
    "maintenance_off": (S.MAINTENANCE_MODE, {}, "maintenance exit", "maintenance off"),
    "maintenance_off of one that is gone": (S.OFFLINE_MAINTENANCE, {}, "offline", "maintenance off"),
    "maintenance_comment": (S.MAINTENANCE_PENDING, {"comment": " later "}, "comment: later", "comment: later"),
    "shutdown": (S.RUNNING, {}, "shutdown request", "shutdown"),
    "add_queues": (S.IDLE, {"queues": ["b", "c"]}, "queues: a, b, c", "queues: a, b, c"),
    "remove_queues": (S.IDLE, {"queues": ["a", "z"]}, "queues: none", "queues: none"),
    "set_concurrency": (S.RUNNING, {"slots": 7}, "7 slots", "slots: 4 to 7"),
}
"""State before, what is asked for, what is said of it, and what the event says."""


@pytest.mark.parametrize("case", CASES)
def test_an_action_is_done_told_and_kept_with_who_and_what(database, audit_log, case):
    before, fields, said, detail = CASES[case]
    kind = case.partition(" ")[0]
    with database() as session:
        register_as(session, before, queues=["a"])
    dry = act(kind, "w", dry_run=True, **fields)
    with database() as session:
        assert (stored(session).state, len(history(session))) == (before, 1)
        assert audit_log() == []
    began = datetime.now(UTC)
    assert act(kind, "w", **fields) == dry == {"w": (True, said)}
    with database() as session:
        worker, event = stored(session), workers.events_of(session, "w")[0]
        assert (event.from_state, event.to_state, event.cause) == (before, worker.state, "admin:ann")
        assert event.detail == detail
        assert (worker.state == said) is (said in set(S))
        since = (began <= worker.state_since, worker.state_cause)
        assert since == ((True, "admin:ann") if worker.state != before else (False, "registered"))
    asked = ACTION.validate_python({"kind": kind, **fields}).model_dump()
    assert audit_log() == [(f"edge_worker_{kind}", "ann", {**asked, "workers": ["w"]})]


REFUSED = {
    "shutdown": (S.OFFLINE, {}, "nobody is there to be told"),
    "add_queues": (S.UNKNOWN, {"queues": ["b"]}, "nobody is there to be told"),
    "remove_queues": (S.OFFLINE_MAINTENANCE, {"queues": ["a"]}, "nobody is there to be told"),
    "set_concurrency": (S.OFFLINE, {"slots": 2}, "nobody is there to be told"),
    "maintenance_off": (S.RUNNING, {}, "Worker 'w' is in state 'running', not in maintenance."),
    "maintenance_off of one that is gone": (S.OFFLINE, {}, "not in maintenance"),
    "remove_queues that it has not": (S.IDLE, {"queues": ["b", "c"]}, "does not serve b, c: its queues are a."),
    "maintenance_comment": (S.RUNNING, {"comment": "x"}, "not in maintenance"),
    "remove": (S.MAINTENANCE_MODE, {}, "Shut it down first"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_says_why_and_leaves_no_trace(database, audit_log, case):
    before, fields, why = REFUSED[case]
    kind = case.partition(" ")[0]
    with database() as session:
        register_as(session, before, queues=["a"])
    for dry_run in (True, False):
        ((done, text),) = act(kind, "w", dry_run=dry_run, **fields).values()
        assert not done
        assert why in text
    with database() as session:
        assert (stored(session).state, stored(session).queues, len(history(session))) == (before, ["a"], 1)
    assert audit_log() == []


def test_a_worker_of_every_queue_loses_none_of_them_and_says_what_to_do(database, audit_log):
    with database() as session:
        register_as(session, S.IDLE, queues=None)
    for dry_run in (True, False):
        assert act("remove_queues", "w", queues=["a"], dry_run=dry_run) == {
            "w": (
                False,
                "Worker 'w' serves every queue. First add those that it is to have: it has only them then.",
            )
        }
    assert audit_log() == []
    assert act("add_queues", "w", queues=["a", "b"])["w"] == (True, "queues: a, b")
    assert act("remove_queues", "w", queues=["a", "z"])["w"] == (True, "queues: b")
    assert act("remove_queues", "w", queues=["a"])["w"][0] is False


@pytest.mark.parametrize("state", [S.MAINTENANCE_REQUEST, S.MAINTENANCE_MODE, S.OFFLINE_MAINTENANCE])
@pytest.mark.parametrize("origin", ["admin", "local", "automatic"])
def test_maintenance_again_keeps_its_comment_unless_there_is_another(database, state, origin):
    with database() as session:
        worker = register_as(session, state)
        worker.maintenance_comment, worker.maintenance_origin = "disk", origin
    for comment, kept in ((None, "disk"), ("", "disk"), ("fan", "fan")):
        assert act("maintenance_on", "w", comment=comment)["w"][0]
        with database() as session:
            assert (stored(session).maintenance_comment, stored(session).maintenance_origin) == (kept, "admin")
            assert workers.events_of(session, "w")[0].detail == f"maintenance on: {kept}"


def test_a_removed_worker_leaves_nothing_but_the_audit_log(database, audit_log):
    with database() as session:
        worker = register_as(session, S.UNKNOWN)
        line = {"number": 1, "time": NOW, "level": 20, "text": "bye"}
        workers.worker_log.append(session, worker, [("source", LogLine.model_validate(line))])
    said = []
    with listening(said):
        assert act("remove", "w", dry_run=True) == {"w": (True, "removed")}
    deletes = "DELETE FROM edge_otel_worker_event"
    assert not [statement for statement in said if deletes in statement], "however many events it has"
    with database() as session:
        assert len(history(session)) == 1
    assert act("remove", "w") == {"w": (True, "removed")}
    with database() as session:
        assert [session.scalars(select(table)).all() for table in (Worker, WorkerEvent, WorkerLog)] == [[], [], []]
    assert audit_log() == [("edge_worker_remove", "ann", {"kind": "remove", "workers": ["w"]})]


def test_each_of_many_is_told_what_became_of_it_and_the_log_has_those_that_obeyed(database, audit_log):
    with database() as session:
        scope = {"queues": ["a"], "team": None, "lifetime": timedelta(days=1), "now": NOW, "by": None}
        token, _ = tokens.create(session, worker="bound", **scope)
        session.flush()
        register_as(session, S.IDLE, "bound", token_id=token.id, queues=["a"])
        register_as(session, S.OFFLINE, "gone")
        register_as(session, S.RUNNING, "fine", queues=["a"])
        register_as(session, S.RUNNING, "other", queues=["a"])
    did = act("add_queues", "fine", "nobody", "gone", "bou*", "no\nsuch", queues=["b"])
    assert list(did) == ["no\nsuch", "nobody", "bound", "fine", "gone"]
    assert did["fine"] == (True, "queues: a, b")
    assert did["nobody"] == did["no\nsuch"] == (False, "No worker of this name is registered.")
    assert did["bound"][0] is did["gone"][0] is False
    assert "allows only the queues a" in did["bound"][1]
    (entry,) = audit_log()
    assert entry == ("edge_worker_add_queues", "ann", {"kind": "add_queues", "queues": ["b"], "workers": ["fine"]})


def test_a_name_that_is_registered_and_not_what_else_was_selected_is_told_from_an_unknown_one(database):
    with database() as session:
        register_as(session, S.IDLE, "a")
        register_as(session, S.RUNNING, "b")
    did = act("shutdown", selection={"names": ["a", "b", "c"], "states": ["running"]})
    assert did["b"] == (True, "shutdown request")
    assert did["a"] == (False, "It is not what else was selected: another state, queue or team.")
    assert did["c"] == (False, "No worker of this name is registered.")


def test_a_worker_that_may_be_seen_and_not_changed_says_so(database, audit_log):
    with database() as session:
        for name, team in (("a", None), ("b", "red"), ("c", "blue")):
            register_as(session, S.IDLE, name, team=team)
    action = ACTION.validate_python({"kind": "shutdown"})
    may = {"sees": lambda team: team != "blue", "permits": lambda team: team is None}
    did = carry_out(Selection(names=["*", "c"]), action, by="ann", **may)
    assert [(outcome.worker, outcome.done) for outcome in did] == [("c", False), ("b", False), ("a", True)]
    (*_, extra) = audit_log()[0]
    assert extra["workers"] == ["a"]
    with database() as session:
        assert {worker.name: worker.state for worker in workers.every(session)} == {
            "a": S.SHUTDOWN_REQUEST,
            "b": S.IDLE,
            "c": S.IDLE,
        }


def test_batches_are_committed_one_by_one(database, audit_log):
    names = [f"w{number:03}" for number in range(2 * BATCH + 1)]
    with database() as session:
        for name in names:
            register_as(session, S.IDLE, name)
    did = carry_out(Selection(names=["w*"]), ACTION.validate_python({"kind": "shutdown"}), by="ann")
    seen = [next(did).worker]
    with database() as session:
        asked = session.scalars(select(Worker.name).where(Worker.state == S.SHUTDOWN_REQUEST).order_by(Worker.name))
        assert asked.all() == names[:BATCH]
    assert [entry[2]["workers"] for entry in audit_log()] == [names[:BATCH]]
    assert seen + [outcome.worker for outcome in did] == names
    assert [len(entry[2]["workers"]) for entry in audit_log()] == [BATCH, BATCH, 1]


def test_administrators_and_heartbeats_at_once_wait_for_each_other_and_lose_nothing(database, audit_log):
    names = [f"w{number:02}" for number in range(BATCH + 10)]
    with database() as session:
        for name in names:
            register_as(session, S.IDLE, name, connection="c")
    beat = fleet.Beat("c", report(S.RUNNING), datetime.now(UTC), None)

    def beats(turn: int) -> int:
        with database() as session:
            return len(fleet.record_beats(session, dict.fromkeys(names[:: 1 if turn % 2 else -1], beat)).not_written)

    with ThreadPoolExecutor(4) as pool:
        heard = [pool.submit(beats, turn) for turn in range(6)]
        first = pool.submit(act, "maintenance_on", "w*", comment="first", by="ann")
        second = pool.submit(act, "set_concurrency", *reversed(names), slots=3, by="bob")
        heard += [pool.submit(beats, turn) for turn in range(6)]
        assert {done for done, _ in [*first.result().values(), *second.result().values()]} == {True}
        assert all(future.result() <= len(names) for future in heard)
    beats(0)
    with database() as session:
        for name in names:
            worker, past = stored(session, name), history(session, name)
            # An open request stands until it is obeyed, whatever was reported meanwhile.
            assert (worker.state, worker.slots_wanted) == (S.MAINTENANCE_REQUEST, 3)
            assert worker.maintenance_comment == "first"
            assert [cause for *_, cause in past].count("admin:bob") == 1
            assert all(after == before for (_, after, _), (before, _, _) in pairwise(past[1:]))
    assert {owner for _, owner, _ in audit_log()} == {"ann", "bob"}


@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
def test_a_row_that_somebody_keeps_locked_holds_up_its_own_batch_alone_and_not_for_ever(database, audit_log):
    names = [f"w{number:03}" for number in range(2 * BATCH)]
    with database() as session:
        for name in names:
            register_as(session, S.IDLE, name)
    with database() as other:
        workers.locked(other, names[10])
        did = list(act("shutdown", "w*").values())
    assert set(did[:BATCH]) == {(False, DatabaseUnavailable().detail)}
    assert set(did[BATCH:]) == {(True, "shutdown request")}
    with database() as session:
        states = [worker.state for worker in workers.every(session)]
    assert states == [S.IDLE] * BATCH + [S.SHUTDOWN_REQUEST] * BATCH
    assert [extra["workers"] for *_, extra in audit_log()] == [names[BATCH:]]
    assert {done for done, _ in act("shutdown", "w*").values()} == {True}


@pytest.mark.parametrize("text", ['"}], "x": "', "'; DROP TABLE edge_otel_worker; --", "%s %(a)s {0} \\", "👷 Ж"])
def test_texts_of_people_stay_texts(database, audit_log, text):
    with database() as session:
        register_as(session, S.IDLE, queues=["a"])
    act("maintenance_on", "w", comment=text, by=text)
    act("add_queues", "w", queues=[text], by=text)
    with database() as session:
        worker, event = stored(session), workers.events_of(session, "w")[1]
        assert (worker.maintenance_comment, worker.queues) == (text, ["a", text])
        assert (event.detail, event.cause, worker.state_cause) == (f"maintenance on: {text}", *[f"admin:{text}"] * 2)
    assert [(owner, extra.get("comment", extra.get("queues"))) for _, owner, extra in audit_log()] == [
        (text, text),
        (text, [text]),
    ]


def test_the_longest_texts_are_kept_as_far_as_there_is_room(database, audit_log):
    with database() as session:
        register_as(session, S.IDLE, queues=["a"])
    user = "u" * 1000
    assert act("maintenance_on", "w", comment="Ж" * 1024, by=user)["w"][0]
    assert act("add_queues", "w", queues=[f"{'Ж' * 254}{n:02}" for n in range(63)], by=user)["w"][0]
    with database() as session:
        assert stored(session).maintenance_comment == "Ж" * 1024
        assert [len(e.cause) for e in workers.events_of(session, "w")[:2]] == [256, 256]
    assert [len(owner) for _, owner, _ in audit_log()] == [audit.MAX_OWNER] * 2
    comment, queues = [extra for *_, extra in audit_log()]
    assert comment["comment"] == "Ж" * 1024
    beginning = '{"workers": ["w"], "kind": "add_queues", "queues": ["\\u0416'
    assert queues["cut_off"].startswith(beginning), "on whom is said"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "explode"},
        {"kind": "shutdown", "force": True},
        {"kind": "maintenance_on", "comment": "x" * 1025},
        {"kind": "maintenance_comment", "comment": " \n "},
        {"kind": "add_queues", "queues": []},
        {"kind": "add_queues", "queues": ["  "]},
        {"kind": "add_queues", "queues": ["\x00"]},
        {"kind": "add_queues", "queues": ["q"] * 65},
        {"kind": "set_concurrency", "slots": 0},
        {"kind": "set_concurrency", "slots": 100_001},
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_makes_no_sense_is_no_action(database, wrong):
    with pytest.raises(ValidationError):
        act(wrong.pop("kind"), "w", **wrong)
