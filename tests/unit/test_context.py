"""W3C trace context: what is well-formed passes, anything else is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_otel.telemetry import context

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_well_formed_context_passes_without_what_does_not_belong():
    carrier = {"traceparent": PARENT, "tracestate": "a=1", "authorization": "secret"}
    assert context.valid(carrier) == {"traceparent": PARENT, "tracestate": "a=1"}


@pytest.mark.parametrize(
    "parent",
    [
        None,
        7,
        "",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "-00",
        PARENT + "\n",
        "ff" + PARENT[2:],
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        PARENT.replace("b7ad6b7169203331", "0" * 16),
        PARENT.replace("0af7", "٠af7"),
    ],
)
def test_a_malformed_parent_is_no_context(parent):
    assert context.valid({"traceparent": parent, "tracestate": "a=1"}) == {}
    if isinstance(parent, str):
        assert context.trace_id({"traceparent": parent}) is None or parent.startswith("ff")


@given(st.one_of(st.none(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text() | st.integers())))
def test_anything_at_all_gives_a_context_or_nothing(carrier):
    assert context.valid(carrier) == {}


@pytest.mark.parametrize("state", ["", "a" * 513, 5, None])
def test_a_bad_trace_state_is_left_out(state):
    assert context.valid({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}


def test_a_new_root_is_well_formed_unsampled_and_new_every_time():
    first, second = context.new_root(), context.new_root()
    assert context.valid(first) == first
    assert first["traceparent"].endswith("-00")
    assert context.trace_id(first) != context.trace_id(second)


def test_the_trace_id_is_the_second_field():
    assert context.trace_id({"traceparent": PARENT}) == "0af7651916cd43dd8448eb211c80319c"
    assert context.trace_id({}) is None
