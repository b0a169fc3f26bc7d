"""Which versions of a worker are accepted."""

from __future__ import annotations

import pytest

from edge_otel import versions
from edge_otel.errors import VersionRefused


@pytest.mark.parametrize("worker", ["3.3.2", "3.3.0", "3.3.99", "3.3.2.dev1", "3.3", "3.3.2+local"])
def test_the_same_minor_version_matches(worker):
    assert versions.check(worker, "3.3.2", "", "Airflow") is True
    assert versions.check(worker, "3.3.2", "3.4.0", "Airflow") is True


@pytest.mark.parametrize("worker", ["3.2.0", "3.4.1", "4.0.0"])
def test_another_version_from_the_minimum_on_is_accepted_as_a_mismatch(worker):
    assert versions.check(worker, "3.3.2", "3.2.0", "Airflow") is False


@pytest.mark.parametrize(("worker", "minimum"), [("3.2.9", ""), ("3.4.0", ""), ("2.10.0", "3.2.0")])
def test_another_version_is_refused_with_both_versions_in_the_text(worker, minimum):
    with pytest.raises(VersionRefused) as refused:
        versions.check(worker, "3.3.2", minimum, "Airflow")
    assert worker in str(refused.value)
    assert "3.3.2" in str(refused.value)
    assert minimum in str(refused.value)


@pytest.mark.parametrize("worker", [None, "", "latest", "3.3.2; rm", "٣.٣.٢x", "9" * 5000])
def test_what_is_no_version_is_refused_with_a_short_text(worker):
    with pytest.raises(VersionRefused) as refused:
        versions.check(worker, "3.3.2", "3.0", "Airflow")
    assert len(str(refused.value)) < 250


def test_a_very_long_version_is_refused_with_a_short_text():
    with pytest.raises(VersionRefused) as refused:
        versions.check("1." + "9" * 1000, "3.3.2", "3.0", "Airflow")
    assert len(str(refused.value)) < 300
