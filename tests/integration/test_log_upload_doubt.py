"""What an answer of Airflow's remote log says on whether an upload has arrived."""

from __future__ import annotations

import pytest

from edge_otel.api import log_upload

P = "a/attempt=1.log"
HERE = f"s3://b/{P}"


@pytest.mark.parametrize(
    ("sources", "found", "before", "expected"),
    [
        ([], None, "", False),
        ([HERE], ["one\ntwo\n"], "", True),
        ([HERE], ["one\r\ntwo"], "", True),
        ([HERE], ["one\n"], "one\n", False),
        ([HERE], ["Could not read logs from there"], "one\n", "unclear"),
        ([HERE], ["Could not read logs from there"], "", "unclear"),
        ([f"{HERE}.trigger.7.log"], ["one\ntwo\n"], "", False),
        ([HERE, f"{HERE}.trigger.7.log"], ["one\n", "one\ntwo\n"], "one\n", False),
        (["somewhere"], ["one\ntwo\n"], "", True),
        (["from host"], [object(), object()], "", "unclear"),
    ],
)
def test_a_remote_log_is_asked_whether_it_has_an_upload(sources, found, before, expected):
    if expected == "unclear":
        with pytest.raises(log_upload._Unclear):
            log_upload.has(sources, found, P, "two\n", before)
    else:
        assert log_upload.has(sources, found, P, "two\n", before) is expected
