"""W3C trace context as plain dicts of headers, so that no caller needs the OpenTelemetry API.

Format: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
import secrets

Carrier = dict[str, str]

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})\Z")
_TRACESTATE_MAX = 512


def new_root() -> Carrier:
    """Return the context of a new trace that nobody records (flag 00)."""
    return {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"}


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


def trace_id(carrier: Carrier) -> str | None:
    """Return the 32 hex digits of the trace, or None where the carrier holds no context."""
    match = _TRACEPARENT.match(carrier.get("traceparent", ""))
    return match.group(1) if match else None
