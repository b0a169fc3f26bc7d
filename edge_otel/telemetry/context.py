"""W3C trace context as plain dicts of headers, so that no caller needs the OpenTelemetry API.

Format: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
import secrets

Carrier = dict[str, str]

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})\Z")
_TRACESTATE_MAX = 512


def new_root(sampled: bool = False) -> Carrier:
    """Return the context of a new trace; one that is not sampled travels, and nobody records it."""
    return {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-0{int(sampled)}"}


def child_of(parent: Carrier) -> Carrier:
    """Return the context of a new span below ``parent``, sampled as that is; without one, an unsampled root."""
    found = valid(parent)
    if not found:
        return new_root()
    version, trace, _, flags = found["traceparent"].split("-")
    return {**found, "traceparent": f"{version}-{trace}-{secrets.token_hex(8)}-{flags}"}


def recorded(carrier: Carrier) -> Carrier:
    """Return the same context, sampled: for a span of which it turned out that it is worth it."""
    return {**carrier, "traceparent": f"{carrier['traceparent'][:-2]}01"}


def sampled(carrier: Carrier) -> bool:
    """Return whether the spans of this context are recorded. The bit counts: this SDK writes 03, Airflow 01."""
    match = _TRACEPARENT.match(carrier.get("traceparent", ""))
    return match is not None and bool(int(match.group(3), 16) & 1)


def valid(carrier: object) -> Carrier:
    """Return the trace context in ``carrier``, or an empty dict where there is none that is well-formed."""
    if not isinstance(carrier, dict):
        return {}
    parent = carrier.get("traceparent")
    if not isinstance(parent, str) or parent.startswith("ff") or not _TRACEPARENT.match(parent):
        return {}
    state = carrier.get("tracestate")
    if isinstance(state, str) and state and len(state) <= _TRACESTATE_MAX:
        return {"traceparent": parent, "tracestate": state}
    return {"traceparent": parent}


def ids(carrier: Carrier) -> tuple[str, str]:
    """Return trace id and span id in hex digits of a well-formed carrier."""
    _, trace, span, _ = carrier["traceparent"].split("-")
    return trace, span


def trace_id(carrier: Carrier) -> str | None:
    """Return the 32 hex digits of the trace, or None where the carrier holds no context."""
    match = _TRACEPARENT.match(carrier.get("traceparent", ""))
    return match.group(1) if match else None
