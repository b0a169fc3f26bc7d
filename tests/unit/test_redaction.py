"""No text of an exception carries a connection's password away."""

from __future__ import annotations

import pytest

from edge_otel.telemetry import context, names
from edge_otel.telemetry.redaction import without_secrets, without_user_info
from edge_otel.telemetry.spans import Finished, Recorder


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("at postgresql+psycopg2://u:s3:cr@t@db/x?a=b@c, twice amqp://u@mq", None),
        ("http://proxy:3128/a@b and a@b //", "http://proxy:3128/a@b and a@b //"),
    ],
)
def test_user_and_password_of_urls_are_left_out_and_nothing_else(text: str, told: str | None) -> None:
    assert without_user_info(text) == (told or "at postgresql+psycopg2://…@db/x?a=b@c, twice amqp://…@mq")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ewt_0123456789abcdef.ab-c_d refused", "ewt_0123456789abcdef.… refused"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer …"),
        ("{'token': 'eyJhbGciOiJIUzI1NiJ9.e30.c2ln', 'x': 1}", "{'token': 'eyJ…', 'x': 1}"),
        ("at amqp://u:p@mq", "at amqp://…@mq"),
        ("the bearer token of ewt_0123456789abcdef was revoked", None),
    ],
)
def test_tokens_are_left_out_and_nothing_else(text: str, told: str | None) -> None:
    assert without_secrets(text) == (told or text)


def test_status_of_a_span_has_no_password() -> None:
    recorder = Recorder({}, None)
    error = "RuntimeError: postgresql://u:s3cret@db"
    span = Finished(names.PROCESS, context.new_root(True), {}, 0, 1, {names.ERROR_TYPE: "task_failed"}, error=error)
    assert recorder._readable(span).status.description == "RuntimeError: postgresql://…@db"
