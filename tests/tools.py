"""The rule about tools that are missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where EDGE_OTEL_TESTS_REQUIRE_ALL says that nothing may be missing."""
    if os.environ.get("EDGE_OTEL_TESTS_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
