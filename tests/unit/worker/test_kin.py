"""Which processes are a job's, and which came to the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_worker.journal import Started
from edge_worker.kin import Seen, boot, of_job, trees
from edge_worker.orphans import strangers

DAEMON, ZYGOTE = 10, 20


def seen(pid: int, parent: int, session: int, living: bool = True) -> Seen:
    return Seen(pid, parent, session, f"{boot()}:{pid}", living, 0)


def table(*found: Seen) -> dict[int, Seen]:
    return {one.pid: one for one in (seen(DAEMON, 1, 1), seen(ZYGOTE, DAEMON, ZYGOTE), *found)}


ROOT = Started(100, f"{boot()}:100", 0.0)
SUPERVISOR = seen(100, ZYGOTE, 100)
FAMILY = (seen(101, 100, 100), seen(102, 101, 102), seen(103, 102, 102), seen(104, 101, 100, living=False))


def same(root: Started) -> bool:
    return root.identity == f"{boot()}:100"


def pids(found: list[Seen]) -> set[int]:
    return {one.pid for one in found}


def test_all_below_a_supervisor_are_its_jobs_in_whatever_session() -> None:
    among = table(SUPERVISOR, *FAMILY, seen(200, ZYGOTE, 200))
    assert pids(of_job(ROOT, same, among)) == {100, 101, 102, 103}


def test_session_of_a_dead_supervisor_and_all_below_are_its_jobs() -> None:
    among = table(seen(101, ZYGOTE, 100), *FAMILY[1:], seen(200, ZYGOTE, 200))
    assert pids(of_job(ROOT, same, among)) == {101, 102, 103}


def test_later_process_with_the_supervisors_pid_is_nobody_of_the_job() -> None:
    later = table(SUPERVISOR, *FAMILY)
    assert of_job(ROOT, lambda root: False, later) == []


@pytest.mark.skipif(not boot(), reason="the system does not tell of reboots")
def test_pids_of_before_a_reboot_mean_nothing() -> None:
    assert of_job(Started(100, "another-boot:100", 0.0), lambda root: True, table(SUPERVISOR, *FAMILY), Path("/")) == []


def test_loop_of_parents_does_not_hold_a_look_up() -> None:
    """The table is read one by one, while processes come and go."""
    assert pids(trees([1], {1: seen(1, 2, 1), 2: seen(2, 1, 1)})) == {1, 2}


def test_strangers_are_neither_the_daemons_own_nor_jobs() -> None:
    own = seen(30, DAEMON, 1)
    orphan, leader = seen(103, DAEMON, 102), seen(105, DAEMON, 105)
    among = table(own, orphan, leader, seen(100, DAEMON, 100), seen(106, 103, 102))
    assert pids(strangers(DAEMON, frozenset({ZYGOTE, 100}), False, among)) == {103, 105}
    assert pids(strangers(DAEMON, frozenset({ZYGOTE, 100}), True, among)) == {103}
