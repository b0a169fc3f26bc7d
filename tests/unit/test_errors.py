"""Every error says what happened, and has a status."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from edge_otel import errors
from edge_otel.errors import EdgeError

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgeError)]


@pytest.mark.parametrize("kind", TREE)
def test_an_error_has_a_message_and_a_status(kind):
    error = kind()
    assert str(error) == error.detail
    assert error.detail[0].isupper()
    assert error.detail.endswith(".")
    assert "\n" not in error.detail
    assert HTTPStatus(error.status) >= 400


@pytest.mark.parametrize("kind", [kind for kind in TREE if kind is not EdgeError])
def test_an_error_does_not_borrow_its_message(kind):
    assert kind.__doc__ != EdgeError.__doc__


def test_a_detail_replaces_the_message_and_facts_are_kept_apart():
    error = errors.LogGap("Rewind.", cursor=7)
    assert (str(error), error.facts) == ("Rewind.", {"cursor": 7})
