"""Received spans, and what can be read from them: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from demo.telemetry import texts


@dataclass(frozen=True)
class Span:
    """One span as a receiver got it; ids are hexadecimal, times in nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    start: int
    end: int
    failed: bool = False
    kind: str = "INTERNAL"
    attributes: dict[str, str] = field(default_factory=dict)
    resource: dict[str, str] = field(default_factory=dict)


def decode(body: bytes) -> list[Span]:
    """Return the spans of an OTLP/HTTP protobuf body."""
    request = ExportTraceServiceRequest.FromString(body)
    found = []
    for resource in request.resource_spans:
        about = texts(resource.resource.attributes)
        for scope in resource.scope_spans:
            found += [
                Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    service=about.get("service.name", ""),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    attributes=texts(span.attributes),
                    resource=about,
                )
                for span in scope.spans
            ]
    return found


def parent(span: Span, spans: Iterable[Span]) -> Span | None:
    """Return the span's parent, when it was received.

    All tries of a task have one carrier, so that the ``task_run`` spans of two tries share an id: the one meant
    is the one during which this span started.
    """
    same = [other for other in spans if (other.trace_id, other.span_id) == (span.trace_id, span.parent_id)]
    around = [other for other in same if other.start <= span.start <= other.end]
    return next(iter(around or same), None)


def ancestors(span: Span, spans: Iterable[Span]) -> list[Span]:
    """Return the span's parent, that one's parent, and so on, within its trace."""
    known = list(spans)
    line: list[Span] = []
    above = parent(span, known)
    while above is not None and above not in line:
        line.append(above)
        above = parent(above, known)
    return line


def broken_chains(spans: Iterable[Span], run_id: str, expected: int) -> list[str]:
    """Return what is wrong with the traces of a DAG run's tasks; empty when nothing is.

    Each of the ``expected`` tries has a ``worker.*`` span below ``process …`` below ``task_run.*`` below ``dag_run.*``.
    """
    mine = of_run(spans, run_id)
    tries = [span for span in mine if span.name.startswith("worker.")]
    wrong = [] if len(tries) == expected else [f"{len(tries)} worker.* spans instead of {expected}"]
    for span in tries:
        line = [above.name for above in ancestors(span, mine)]
        kinds = [name.split(".")[0].split(" ")[0] for name in line]
        if kinds != ["process", "task_run", "dag_run"]:
            wrong.append(f"{span.name} is below {' < '.join(line) or 'nothing'}")
    if len({span.trace_id for span in mine}) > 1:
        wrong.append("more than one trace")
    return wrong


def of_run(spans: Iterable[Span], run_id: str) -> list[Span]:
    """Return the spans of the trace in which this DAG run is named."""
    everything = list(spans)
    traces = {span.trace_id for span in everything if run_id in span.attributes.values()}
    return [span for span in everything if span.trace_id in traces]


def tree(spans: Iterable[Span]) -> Iterator[str]:
    """Yield one line per span, indented below its parent, in order of start."""
    ordered = sorted(spans, key=lambda span: span.start)
    parents = [parent(span, ordered) for span in ordered]

    def below(above: Span | None, depth: int) -> Iterator[str]:
        for span, owner in zip(ordered, parents, strict=True):
            if owner is above:
                mark = "  FAILED" if span.failed else ""
                yield f"{'  ' * depth}{span.name}  {(span.end - span.start) / 1e9:.2f} s  ({span.service}){mark}"
                yield from below(span, depth + 1)

    return below(None, 0)
