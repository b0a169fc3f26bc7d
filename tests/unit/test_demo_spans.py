"""Reading traces: the demo's verdict rests on it."""

from __future__ import annotations

from demo.spans import Span, broken_chains, of_run, tree

RUN = {"airflow.dag_run.run_id": "r1"}


def span(name: str, own: str, parent: str = "", start: int = 0, end: int = 100) -> Span:
    return Span("t1", own, parent, name, "test", start * 10**9, end * 10**9, attributes=RUN)


CHAIN = [
    span("worker.a", "4", "3", 3, 4),
    span("process default", "3", "2", 2, 5),
    span("task_run.a", "2", "1", 1, 6),
    span("dag_run.d", "1"),
]


def test_a_whole_chain_is_not_broken() -> None:
    assert broken_chains(CHAIN, "r1", 1) == []


def test_a_missing_link_is_named() -> None:
    assert broken_chains([CHAIN[0], *CHAIN[2:]], "r1", 1) == ["worker.a is below nothing"]


def test_a_task_that_bypassed_the_worker_is_named() -> None:
    direct = [span("worker.a", "4", "2", 3, 4), *CHAIN[2:]]
    assert broken_chains(direct, "r1", 1) == ["worker.a is below task_run.a < dag_run.d"]


def test_a_missing_try_is_counted() -> None:
    assert broken_chains(CHAIN, "r1", 2) == ["1 worker.* spans instead of 2"]


def test_a_run_in_two_traces_is_named() -> None:
    stray = Span("t2", "9", "", "stray", "test", 0, 1, attributes=RUN)
    assert broken_chains([*CHAIN, stray], "r1", 1) == ["more than one trace"]


def test_spans_of_other_runs_are_left_out() -> None:
    other = Span("t2", "9", "", "dag_run.d", "test", 0, 1, attributes={"airflow.dag_run.run_id": "r2"})
    assert of_run([*CHAIN, other], "r1") == CHAIN


def test_each_try_hangs_below_the_task_run_during_which_it_started() -> None:
    spans = [
        span("dag_run.d", "1"),
        span("task_run.a try 1", "2", "1", 1, 5),
        span("task_run.a try 2", "2", "1", 6, 9),
        span("process 1", "3", "2", 2, 4),
        span("process 2", "4", "2", 7, 8),
    ]
    assert [line.split("  (")[0].rsplit("  ", 1)[0] for line in tree(spans)] == [
        "dag_run.d",
        "  task_run.a try 1",
        "    process 1",
        "  task_run.a try 2",
        "    process 2",
    ]
