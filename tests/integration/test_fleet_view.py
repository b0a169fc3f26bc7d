"""The workers, queues and tokens as people look at them: filters, order, pages, counts, and one worker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rows import NOW, beat, claim, queue_job, register, register_as, report
from sqlalchemy import update

from edge_otel.errors import WorkerNotFound
from edge_otel.models import fleet_view, jobs, queue_view, token_view, tokens, wishes, workers
from edge_otel.models.tables import Job, Worker
from edge_otel.selection import Selection
from edge_otel.state import JobState, WorkerState
from edge_otel.wire import LogLine

S = WorkerState
SECOND = timedelta(seconds=1)
FACTS = {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0", "concurrency": 4}


def listed(session, now=NOW, *, sees=fleet_view.anyone, sort="name", descending=False, offset=0, limit=50, **wanted):
    """Return the names on a page, in order, and the page."""
    page = fleet_view.page(
        session,
        Selection(**wanted),
        now,
        sort=sort,
        descending=descending,
        offset=offset,
        limit=limit,
        sees=sees,
    )
    return [row.name for row in page.workers], page


def test_pages_are_filtered_and_counted_before_they_are_cut(database):
    with database() as session:
        for number in range(7):
            register_as(session, S.IDLE if number % 2 else S.UNKNOWN, f"w{number}", queues=[f"q{number % 3}"])
        register_as(session, S.IDLE, "other")
        names, page = listed(session, search="W", offset=2, limit=3)
        assert (names, page.total, page.states) == (["w2", "w3", "w4"], 7, {"idle": 3, "unknown": 4})
        names, page = listed(session, names=["w*"], states=["idle"], offset=1)
        # The other states are counted as well: the page has them beside its filter.
        assert (names, page.total, page.states) == (["w3", "w5"], 3, {"idle": 3, "unknown": 4})
        assert listed(session, queues=["q0"])[0] == ["other", "w0", "w3", "w6"]
        assert listed(session, offset=100)[0] == []
        names, page = listed(session, names=["nobody"])
        assert (names, page.total, page.states, page.at) == ([], 0, {}, NOW)


def test_what_is_of_a_team_is_neither_listed_nor_counted_for_those_who_may_not_see_it(database):
    with database() as session:
        register_as(session, S.IDLE, "a", team="red")
        register_as(session, S.IDLE, "b", team="blue")
        register_as(session, S.IDLE, "c")
        names, page = listed(session, sees=lambda team: team in (None, "red"))
        assert (names, page.total, page.states) == (["a", "c"], 2, {"idle": 2})
        assert listed(session, team="blue")[0] == ["b"]
        assert listed(session, team="blue", sees=lambda team: team == "red")[1].states == {}


@pytest.mark.parametrize(
    ("sort", "ascending", "descending"),
    [
        ("name", "abcde", "edcba"),
        ("state", "abdec", "cabde"),
        ("since", "ebcda", "abcde"),
        ("heartbeat", "abcde", "edcba"),
        ("jobs", "acdeb", "bacde"),
        ("cpu", "cbade", "abcde"),
        ("memory", "bacde", "abcde"),
        ("disk", "abcde", "abcde"),
    ],
)
def test_workers_are_in_the_order_asked_for_equals_by_name_and_what_is_not_known_last(
    database, sort, ascending, descending
):
    """Of ``a`` to ``e``: c has no CPU load at all, d says what cannot be, e says nothing."""
    told = {"a": (100.0, 50), "b": (7, 20.5), "c": (0, "much"), "d": (101, -1), "e": (None, None)}
    with database() as session:
        for number, (name, (cpu, memory)) in enumerate(told.items()):
            facts = FACTS | ({} if cpu is None else {"cpu_percent": cpu, "memory_percent": memory})
            worker = register(session, name, NOW, sysinfo=facts)
            worker.state = S.UNKNOWN if name == "c" else S.IDLE
            worker.state_since = NOW - number * SECOND if name in "ae" else NOW - 2 * SECOND
            worker.last_heartbeat = NOW - number * SECOND
        session.flush()
        # By the server's account, whatever the worker says.
        workers.get(session, "a").jobs_active = 9
        queue_job(session, NOW)
        claim(session, workers.get(session, "b"), NOW)
        assert "".join(listed(session, sort=sort)[0]) == ascending
        assert "".join(listed(session, sort=sort, descending=True)[0]) == descending
        assert "".join(listed(session, sort=sort, offset=1, limit=2)[0]) == ascending[1:3]


def test_a_row_says_how_the_worker_stands(database):
    facts = {
        **FACTS,
        "status": 30,
        "cpu_percent": 12.5,
        "memory_percent": -1,
        "disk_percent": "full",
        "clock_skew": -0.25,
    }
    with database() as session:
        worker = register(session, "w", NOW, queues=["a"], sysinfo=facts, connection="c", heartbeat_interval=10.0)
        wishes.set_concurrency(session, "w", 9, NOW, by="ann")
        for slots in (1, 2, 5):
            queue_job(session, NOW, queue="a", slots=slots)
            job = claim(session, worker, NOW, free_slots=9)
        jobs.record_report(job, JobState.FAILED, job.claim, NOW)
        session.flush()
        (row,) = listed(session, NOW + 21 * SECOND)[1].workers
        held = session.query(Job).where(Job.state == "assigned").all()
        assert (row.slots, row.slots_used, row.jobs) == (9, sum(job.slots for job in held), 2)
        assert (row.heartbeat_age, row.late, row.transport, row.health) == (21.0, True, "channel", "Warning")
        assert (row.cpu_percent, row.memory_percent, row.disk_percent, row.clock_skew) == (12.5, None, None, -0.25)
        assert (row.edge_version, row.airflow_version) == ("0.1.0", "3.3.2")
        assert (row.load_history.at, row.load_history.cpu, row.load_history.memory) == (NOW, [12], [None])
        assert not listed(session, NOW + 20 * SECOND)[1].workers[0].late
        worker.state, worker.connection = S.UNKNOWN, None
        session.flush()
        (row,) = listed(session, NOW + 21 * SECOND)[1].workers
        assert (row.late, row.transport) == (False, "polling")
        assert listed(session, NOW - SECOND)[1].workers[0].heartbeat_age == 0.0


def test_one_worker_is_shown_with_its_history_its_jobs_and_its_log(database):
    with database() as session:
        worker = register(session, "w", NOW)
        beat(session, NOW + SECOND, S.RUNNING, sysinfo={**FACTS, "jobs_stopped_after": 90, "site": "<b>north</b>"})
        wishes.request_maintenance(session, "w", "swap", NOW + 2 * SECOND, by="ann")
        for number, level in enumerate((20, 40), 1):
            line = {"number": number, "time": NOW, "level": level, "logger": "main", "text": f"line {number}"}
            workers.worker_log.append(session, worker, [("source", LogLine.model_validate(line))])
            session.flush()
        for number in range(3):
            queue_job(session, NOW + number * SECOND, task_id=f"t{number}")
            job = claim(session, worker, NOW + number * SECOND)
            if number < 2:
                jobs.record_report(job, JobState.SUCCESS, job.claim, NOW + (9 - number) * SECOND)
        session.flush()
        shown = fleet_view.detail(session, "w", NOW + 3 * SECOND)
        assert shown.facts["site"] == "<b>north</b>"
        assert (shown.worker.jobs_stopped_after, shown.token_id) == (90.0, "t1")
        assert [(e.from_state, e.to_state, e.cause, e.detail) for e in shown.events] == [
            ("running", "maintenance request", "admin:ann", "maintenance on: swap"),
            ("starting", "running", "heartbeat", None),
            (None, "starting", "registered", None),
        ]
        # What it has first, then what ended last.
        assert [job.task_id for job in shown.jobs] == ["t2", "t0", "t1"]
        assert [(line.level, line.logger, line.text) for line in shown.log] == [
            ("INFO", "main", "line 1"),
            ("ERROR", "main", "line 2"),
        ]
        assert (shown.worker.jobs, shown.worker.state_cause) == (1, "admin:ann")
        with pytest.raises(WorkerNotFound):
            fleet_view.detail(session, "v", NOW)


def test_queues_have_their_jobs_and_the_workers_that_take_them(database):
    with database() as session:
        both = register(session, "both", NOW, queues=["a", "b"])
        register(session, "all", NOW)
        register_as(session, S.MAINTENANCE_MODE, "resting", queues=["a", "c"])
        register(session, "red", NOW, queues=["a"], team="red")
        for queue, slots in (("a", 2), ("a", 1), ("d", 1)):
            queue_job(session, NOW, queue=queue, slots=slots)
        job = claim(session, both, NOW, queues=["a", "b"])
        jobs.record_report(job, JobState.RUNNING, job.claim, NOW)
        session.flush()
        held = job.slots
        found = {(row.queue, row.team): row for row in queue_view.every(session, NOW + 5 * SECOND)}
        assert list(found) == [("a", None), ("a", "red"), ("b", None), ("c", None), ("d", None)]
        a = found["a", None]
        assert (a.queued, a.assigned, a.running, a.oldest_age) == (1, 0, 1, 5.0)
        assert (a.workers, a.slots, a.slots_used) == (2, 8, held)
        assert [(row.workers, row.oldest_age) for row in list(found.values())[1:4]] == [(1, None), (2, None), (1, None)]
        assert (found["d", None].queued, found["d", None].workers) == (1, 1)


def test_queues_are_filtered_and_cut_and_those_in_trouble_are_first(database):
    with database() as session:
        register(session, "w", NOW, queues=["Idle", "busy_1", "busy_2"])
        register(session, "red", NOW, queues=["busy_1"], team="red")
        for queue, many in (("busy_1", 1), ("busy_2", 3), ("nobody's", 2), ("done", 1)):
            for _ in range(many):
                job_id = queue_job(session, NOW, queue=queue)
        session.execute(update(Job).where(Job.id == job_id).values(state="success"))

        def found(offset=0, limit=50, **wanted):
            page = queue_view.page(session, NOW, offset=offset, limit=limit, **wanted)
            return [(row.queue, row.team) for row in page.queues], page.total, page.teams

        every = [("nobody's", None), ("busy_2", None), ("busy_1", None)]
        every += [("Idle", None), ("busy_1", "red"), ("done", None)]
        assert found() == (every, 6, True)
        assert found(1, 2) == (every[1:3], 6, True)
        assert found(100) == ([], 6, True)
        assert found(search="Y_1") == ([every[2], every[4]], 2, True)
        assert found(search="%") == ([], 0, True)
        assert found(sees=lambda team: team is None) == ([row for row in every if not row[1]], 5, False)


def test_tokens_are_listed_by_state_and_part_the_newest_first(database):
    def make(worker, team=None, days=1, at=NOW):
        values = {"queues": None, "team": team, "lifetime": timedelta(days=days), "now": at, "by": "ann"}
        return tokens.create(session, worker=worker, **values)[0].id

    with database() as session:
        first, second = make("site-1"), make("Site_2", at=NOW + SECOND)
        gone, red = make("old", days=-1, at=NOW + 2 * SECOND), make("x", "red", at=NOW + 3 * SECOND)
        session.flush()
        tokens.revoke(session, second, NOW)
        session.flush()

        def listed(**wanted):
            page = token_view.page(session, NOW + 4 * SECOND, **wanted)
            return [row.id for row in page.tokens], page.total

        page = token_view.page(session, NOW + 4 * SECOND)
        assert ([row.id for row in page.tokens], page.total) == ([red, gone, second, first], 4)
        assert page.states == {"valid": 2, "expired": 1, "revoked": 1}
        assert [row.state for row in page.tokens] == ["valid", "expired", "revoked", "valid"]
        assert listed(limit=2, offset=1) == ([gone, second], 4)
        assert listed(states=["valid"]) == ([red, first], 2)
        assert listed(search="SITE") == ([second, first], 2)
        assert listed(search="e_2") == ([second], 1)
        assert listed(search="%") == ([], 0)
        assert listed(search=first[3:9].upper()) == ([first], 1)
        assert listed(sees=lambda team: team is None, states=["valid", "expired"]) == ([gone, first], 2)
        assert listed(sees=lambda team: team == "red") == ([red], 1)
        assert listed(sees=lambda team: False) == ([], 0)
        assert "secret" not in page.model_dump_json()


def test_a_fact_that_a_worker_says_oddly_shows_nothing_and_breaks_nothing(database):
    odd = {"status": "bad", "cpu_percent": 1e308, "clock_skew": "late", "edge_provider_version": "x" * 1024}
    with database() as session:
        register(session, "w", NOW, sysinfo={"airflow_version": "3.3.2", **odd})
        worker = session.get(Worker, "w")
        assert report(sysinfo={"airflow_version": "3.3.2", **odd}).sysinfo == worker.sysinfo
        (row,) = listed(session)[1].workers
        assert (row.health, row.cpu_percent, row.clock_skew) == (None, None, None)
        assert listed(session, sort="cpu")[0] == ["w"]
