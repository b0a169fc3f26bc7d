"""Which workers a selection means, and what a hostile one costs."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_otel.selection import MAX_GLOBS, MAX_NAMES, Selection

FLEET = {
    "site7-a": (["default", "gpu"], None),
    "site7-b": (None, None),
    "SITE8-c": (["Gpu-2"], "red"),
    "site9": ([], "blue"),
    "odd": (["q[1]", "%", "_"], None),
}
"""Name, queues (None: every) and team."""


def meant(**wanted):
    """Return which of the fleet are meant."""
    selection = Selection(**wanted)
    return {name for name, (queues, team) in FLEET.items() if selection.matches(name, queues, team)}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, set(FLEET)),
        ({"names": ["site9"]}, {"site9"}),
        ({"names": ["site"]}, set()),
        ({"names": ["Site9"]}, set()),
        ({"names": ["site7-*"]}, {"site7-a", "site7-b"}),
        ({"names": ["site?", "odd"]}, {"site9", "odd"}),
        ({"names": ["site[!7]*"]}, {"site9"}),
        ({"names": ["*"]}, set(FLEET)),
        ({"names": ["site7-a", "*-c"]}, {"site7-a", "SITE8-c"}),
        ({"names": ["s%", "site_"]}, set()),
        ({"names": ["(site9|odd)", "site9\n", "."]}, set()),
        ({"names": ["[", "[]", "[!]", "[z-a]", "[[", "\\", "(?", "**"]}, set(FLEET)),
        ({"names": ["[", "[]", "[!]", "[z-a]", "[[", "\\", "(?"]}, set()),
        ({"queues": ["gpu"]}, {"site7-a", "site7-b"}),
        ({"queues": ["[Gg]pu*"]}, {"site7-a", "site7-b", "SITE8-c"}),
        ({"queues": ["q[1]"]}, {"odd", "site7-b"}),
        ({"queues": ["%"]}, {"odd", "site7-b"}),
        ({"queues": ["nobody's"]}, {"site7-b"}),
        ({"team": "red"}, {"SITE8-c"}),
        ({"team": "re*"}, set()),
        ({"search": "SITE"}, {"site7-a", "site7-b", "SITE8-c", "site9"}),
        ({"search": "e7-"}, {"site7-a", "site7-b"}),
        ({"search": "*"}, set()),
        ({"names": ["site*"], "queues": ["default"], "search": "a"}, {"site7-a"}),
    ],
)
def test_workers_are_meant_by_all_that_is_given(wanted, names):
    assert meant(**wanted) == names


def test_states_are_asked_for_apart():
    selection = Selection(states=["idle", "unknown"])
    assert [selection.allows(state) for state in ("idle", "unknown", "running")] == [True, True, False]
    assert Selection().allows("running")


def test_nothing_given_is_told_from_everything():
    assert not Selection().given
    assert all(Selection(**wanted).given for wanted in ({"names": ["*"]}, {"team": "a"}, {"states": ["idle"]}))


@given(
    st.lists(st.text(st.sampled_from("ab*?[]!-\\^."), min_size=1, max_size=8), max_size=5),
    st.text(st.sampled_from("ab-[]^."), min_size=1, max_size=8),
)
def test_a_name_is_meant_where_one_glob_alone_means_it(globs, name):
    expected = (
        not globs or name in [g for g in globs if not set("*?[") & set(g)] or any(fnmatchcase(name, g) for g in globs)
    )
    assert Selection(names=globs).matches(name, [], None) is expected
    assert Selection(queues=globs).matches("w", [name], None) is (expected or name in globs)


def test_only_so_many_globs_and_names_are_taken():
    names = [f"w{n}" for n in range(MAX_NAMES)]
    assert Selection(names=names).matches("w9999", None, None)
    with pytest.raises(ValidationError, match="at most 10000 items"):
        Selection(names=[*names, "more"])
    with pytest.raises(ValidationError, match="more than 64 globs"):
        Selection(names=["w*"] * (MAX_GLOBS + 1))
    for wrong in (
        {"names": ["a\x00*"]},
        {"names": [""]},
        {"names": ["a" * 65]},
        {"queues": ["a"] * 65},
        {"search": "\x00"},
    ):
        with pytest.raises(ValidationError):
            Selection(**wrong)


@pytest.mark.parametrize("glob", ["*a" * 32, "*?" * 32, "*[!b]" * 12 + "b", "*" * 63 + "b", "*" + "a" * 62 + "b"])
def test_hostile_globs_do_not_keep_the_server_busy(glob):
    globs = [glob.replace("b", sign) for sign in "bdefghijklmnopqrstuvwxyz"]
    queues = [f"{'a' * 60}{number}" for number in range(64)]
    named, serving = Selection(names=globs), Selection(queues=globs)
    began = time.thread_time()
    for number in range(2000):
        named.matches(f"{'a' * 60}{number}", queues, None)
    for _ in range(2000):
        serving.matches("w", queues, None)
    assert time.thread_time() - began < 2
