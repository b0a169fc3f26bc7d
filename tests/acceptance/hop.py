"""Which spans the hop of a task must leave, and a table of those that were received: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from demo.spans import Span
from edge_otel.telemetry import names


@dataclass(frozen=True)
class Try:
    """One try of one task, and how it ended."""

    task: str
    outcome: str = "success"
    error_type: str = ""
    number: int = 1
    index: int = -1
    reaches_airflow: bool = True
    """Airflow's own spans are there: the task's process ended by itself, so its exporter could flush."""

    @property
    def label(self) -> str:
        """Return the try in words."""
        mapped = f"[{self.index}]" if self.index >= 0 else ""
        return f"{self.task}{mapped} try {self.number}"


@dataclass(frozen=True)
class Row:
    """One line of the table: how many of a span were expected, and how many came with the right parent and facts."""

    attempt: str
    span: str
    expected: str
    received: int
    wrong: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Return whether this is as it must be."""
        return not self.wrong and (
            self.received >= 1 if self.expected == "1 or more" else str(self.received) == self.expected
        )


def table(
    spans: Sequence[Span], tries: Iterable[Try], carriers: Mapping[tuple[str, int], str], queue: str
) -> list[Row]:
    """Compare what was received of a run; ``carriers`` has the span id in each task instance's carrier."""
    return [row for attempt in tries for row in _rows(spans, attempt, carriers[attempt.task, attempt.index], queue)]


def _rows(spans: Sequence[Span], attempt: Try, above: str, queue: str) -> Iterator[Row]:
    about = {
        names.TASK_ID: attempt.task,
        names.MAP_INDEX: str(attempt.index),
        names.TRY_NUMBER: str(attempt.number),
    }
    mine = [s for s in spans if all(s.attributes.get(key) == value for key, value in about.items())]
    for kind in (names.SEND, names.QUEUED, names.PROCESS):
        found = [s for s in mine if s.name == kind.named(queue) and s.service == kind.service]
        yield Row(attempt.label, kind.named(queue), "1", len(found), tuple(_wrong(found, kind, above, attempt)))
    process = next((s.span_id for s in mine if s.name == names.PROCESS.named(queue)), "")
    below = [s for s in spans if s.parent_id == process and process]
    for kind, expected in ((names.LAUNCH, "1"), (names.SHIP_LOG, "1 or more")):
        found = [s for s in below if s.name == kind.operation]
        yield Row(attempt.label, kind.operation, expected, len(found), tuple(_wrong(found, kind, process, attempt)))
    # Airflow's own; it appends the index of a mapped task.
    name = f"worker.{attempt.task}" + (f"[{attempt.index}]" if attempt.index >= 0 else "")
    own = [s for s in below if s.name == name]
    yield Row(attempt.label, name, str(int(attempt.reaches_airflow)), len(own), ())


def _wrong(found: Iterable[Span], kind: names.Span, above: str, attempt: Try) -> Iterator[str]:
    for span in found:
        if span.parent_id != above:
            yield f"parent {span.parent_id} instead of {above}"
        if span.kind != kind.kind:
            yield f"kind {span.kind}"
        if extra := span.attributes.keys() - set(kind.attributes):
            yield f"attributes that are not in the catalogue: {sorted(extra)}"
        if kind is names.PROCESS:
            said = (span.attributes.get(names.JOB_OUTCOME), span.attributes.get(names.ERROR_TYPE, ""))
            if said != (attempt.outcome, attempt.error_type) or span.failed != bool(attempt.error_type):
                yield f"outcome and error type {said}"


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the table as text, with the share of what is right at the end."""
    for row in rows:
        verdict = "" if row.right else f"  WRONG {'; '.join(row.wrong)}"
        yield f"{row.attempt:<24} {row.span:<22} expected {row.expected:<10} received {row.received}{verdict}"
    yield f"{sum(row.right for row in rows)} of {len(rows)} as expected"
