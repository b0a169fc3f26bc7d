"""Writes the catalogue into docs/telemetry.md from the names that are used: ``python docs/catalogue.py [--check]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from edge_otel.telemetry import names

PAGE = Path(__file__).with_name("telemetry.md")
BEGIN, END = "<!-- catalogue: begin, written by docs/catalogue.py -->", "<!-- catalogue: end -->"


_SPAN = ("span", "kind", "below", "by", "what it is", "attributes")


def catalogue() -> str:
    """Return the tables, in Markdown."""
    parts = [
        section("Spans", _SPAN, map(span_row, names.SPANS)),
        section("Metrics of the fleet, at `/edge_worker/metrics`, from the database", _METRIC, map(row, names.FLEET)),
        section("Metrics of each API process, at the same address", _METRIC, map(row, names.PROCESS_METRICS)),
        section("Metrics of the scheduler, through Airflow's own metrics", _METRIC, map(row, names.EXECUTOR)),
        section("Metrics of a worker, by OTLP", _METRIC, map(row, names.WORKER)),
        section("Metrics of a worker, at `/metrics` of its health port", _METRIC, map(row, names.LOCAL)),
        section("Attributes", ("attribute", "what it is", "values"), map(attribute_row, attributes())),
    ]
    return "\n\n".join(parts)


_METRIC = ("metric", "kind", "unit", "what it is", "labels")


def section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a heading with its table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def span_row(span: names.Span) -> Sequence[str]:
    """Return the cells of a span."""
    name = span.named("{queue}")
    return f"`{name}`", span.kind, span.parent, span.service, span.help, code(span.attributes)


def row(metric: names.Metric) -> Sequence[str]:
    """Return the cells of a metric."""
    bounds = f" Buckets to {metric.buckets[-1]:g}." if metric.buckets else ""
    return f"`{metric.name}`", metric.kind, metric.unit, metric.help + bounds, code(metric.labels)


def attribute_row(attribute: names.Attribute) -> Sequence[str]:
    """Return the cells of an attribute."""
    return f"`{attribute}`", attribute.help, ", ".join(attribute.values)


def attributes() -> Iterator[names.Attribute]:
    """Yield every attribute in the order of its declaration."""
    yield from (value for value in vars(names).values() if isinstance(value, names.Attribute))


def code(words: Iterable[str]) -> str:
    """Return the words as code, with commas."""
    return ", ".join(f"`{word}`" for word in words)


def written(page: str) -> str:
    """Return the page with the catalogue as of now."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{catalogue()}\n\n{END}{tail}"


def main() -> int:
    """Write the page, or with ``--check`` only tell whether it is current."""
    before = PAGE.read_text()
    after = written(before)
    if "--check" in sys.argv[1:]:
        if before != after:
            print(f"{PAGE} is not current: run python docs/catalogue.py", file=sys.stderr)
        return int(before != after)
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
