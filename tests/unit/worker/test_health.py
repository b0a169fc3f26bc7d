"""When a worker is well, and when it leaves work and comes back by itself."""

from __future__ import annotations

import pytest
from edge_worker.health import (
    ERROR,
    INFO,
    WARNING,
    Act,
    Health,
    Rules,
    Thresholds,
    decide,
    judge,
    level_of,
    read_status,
)

DISK = Thresholds(90, 97)
OFF = Thresholds(0, 0)
ON_ERROR = Rules.named("error", "info")


@pytest.mark.parametrize(
    ("percent", "before", "level"),
    [
        (89.9, INFO, INFO),
        (90, INFO, WARNING),
        (97, INFO, ERROR),
        (95.5, ERROR, ERROR),  # not left before it is clearly below
        (94.9, ERROR, WARNING),
        (88.5, WARNING, WARNING),
        (88.5, INFO, INFO),
        (87.9, ERROR, INFO),
        (None, ERROR, ERROR),  # not known is no news
    ],
)
def test_a_level_is_left_only_well_below_where_it_was_reached(percent, before, level):
    assert level_of(percent, DISK, before) == level


def test_thresholds_of_zero_are_off():
    assert level_of(100, OFF, INFO) == INFO


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (20, INFO),
        (0, INFO),
        (30, WARNING),
        (35.5, WARNING),
        (50, ERROR),
        ("Error", ERROR),
        (" warning ", WARNING),
        ("30", WARNING),
        ("purple", None),
        ("", None),
        ("9" * 5000, None),
        (None, None),
        ([], None),
    ],
)
def test_status_is_a_logging_level_or_its_name(status, level):
    assert read_status(status) == level


def test_health_is_the_worst_and_tells_its_figures():
    told = (WARNING, "the belt squeaks")
    health = judge(Health(), (98.2, 50.0), (DISK, OFF), "/var/lib/edge-worker", told)
    assert (health.level, health.reason) == (ERROR, "Disk of /var/lib/edge-worker at 98 %")
    health = judge(health, (50.0, 99.0), (DISK, Thresholds(80, 0)), "/x", told)
    assert (health.level, health.reason) == (WARNING, "Memory at 99 %; the belt squeaks")
    health = judge(health, (50.0, 10.0), (DISK, OFF), "/x", None)
    assert (health.level, health.reason, health.certain) == (INFO, "", True)


def test_health_is_not_certain_while_the_users_function_has_not_spoken():
    assert not judge(Health(), (1.0, 1.0), (DISK, OFF), "/x", (None, "")).certain


def test_maintenance_begins_at_its_level_and_ends_only_at_the_other():
    assert decide(ON_ERROR, Health(WARNING), None, False) == (Act.NOTHING, False)
    assert decide(ON_ERROR, Health(ERROR), None, False) == (Act.BEGIN, False)
    assert decide(ON_ERROR, Health(ERROR), "automatic", False) == (Act.NOTHING, False)
    assert decide(ON_ERROR, Health(WARNING), "automatic", False) == (Act.NOTHING, False)
    assert decide(ON_ERROR, Health(INFO), "automatic", False) == (Act.END, False)


def test_rules_that_would_end_at_once_what_they_begin_do_not():
    rules = Rules.named("warning", "warning")
    assert decide(rules, Health(WARNING), None, False) == (Act.BEGIN, False)
    assert decide(rules, Health(WARNING), "automatic", False) == (Act.NOTHING, False)
    assert decide(rules, Health(INFO), "automatic", False) == (Act.END, False)


def test_automatic_maintenance_stays_where_nothing_ends_it():
    assert decide(Rules.named("error", "off"), Health(INFO), "automatic", False)[0] is Act.NOTHING


@pytest.mark.parametrize("rules", [Rules.named("off", "off"), Rules.named("off", "info")])
def test_automatic_maintenance_ends_where_it_was_turned_off(rules):
    assert decide(rules, Health(ERROR, certain=False), "automatic", False)[0] is Act.END
    assert decide(rules, Health(ERROR), "local", False)[0] is Act.NOTHING


def test_nothing_begins_when_it_is_off():
    assert decide(Rules.named("off", "info"), Health(ERROR), None, False)[0] is Act.NOTHING


@pytest.mark.parametrize("origin", ["admin", "local"])
def test_what_a_person_began_is_never_ended(origin):
    assert decide(ON_ERROR, Health(INFO), origin, False)[0] is Act.NOTHING


def test_a_person_who_ended_it_is_respected_until_health_was_good_once():
    assert decide(ON_ERROR, Health(ERROR), None, True) == (Act.NOTHING, True)
    assert decide(ON_ERROR, Health(WARNING), None, True) == (Act.NOTHING, False)


def test_what_is_not_certain_neither_ends_maintenance_nor_an_excuse():
    unknown = Health(INFO, certain=False)
    assert decide(ON_ERROR, unknown, "automatic", False) == (Act.NOTHING, False)
    assert decide(ON_ERROR, unknown, None, True) == (Act.NOTHING, True)
