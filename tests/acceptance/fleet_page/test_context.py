"""Who looks and what the server is, in a page that stays open while they change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from acceptance.fleet_page.browser import Tab
from acceptance.fleet_page.conftest import Opening
from acceptance.fleet_page.test_actions import row

PATH = "**/ui/context"


@dataclass
class Answers:
    """The server's answers to who looks, changed or refused; while ``late``, there is none yet."""

    changes: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    late: bool = False
    asked: int = 0
    waiting: list[Route] = field(default_factory=list)

    def come(self) -> None:
        """Give those that were late."""
        self.late = False
        for route in self.waiting:
            self._answer(route)

    def __call__(self, route: Route) -> None:
        self.asked += 1
        if self.late:
            self.waiting.append(route)
        else:
            self._answer(route)

    def _answer(self, route: Route) -> None:
        if self.status != 200:
            route.fulfill(status=self.status, json={"detail": f"It is a {self.status}."})
        else:
            answer = route.fetch()
            route.fulfill(response=answer, json={**answer.json(), **self.changes})


def put(page: Page, state: str) -> None:
    """Have the tab be ``visible`` or ``hidden``, as far as it can see."""
    page.evaluate(
        """(state) => {
            Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


def refused(tab: Tab, status: int, state: str = "visible") -> Answers:
    """Open a page whose user is refused, in a tab that is then ``visible`` or ``hidden``."""
    tab.expected = (str(status), "403")
    page, answers = tab.page, Answers(status=status, late=True)
    page.clock.install()
    page.route(PATH, answers)
    page.goto(f"{tab.url}/plugin/edge")
    # The first answer comes once Airflow has made the page anew.
    page.locator(".edge-page").wait_for(state="attached")
    put(page, state)
    answers.come()
    expect(page.get_by_role("alert")).to_be_visible()
    return answers


def test_another_version_of_the_server_is_seen_in_an_open_page(opening: Opening) -> None:
    with opening() as tab:
        page, answers = tab.page, Answers()
        page.clock.install()
        page.route(PATH, answers)
        tab.open()
        mark = row(page, "press-1").get_by_text("differs")
        expect(mark).to_have_count(0)
        assert answers.asked == 1
        name = page.get_by_label("Name")
        name.fill("press")
        answers.changes = {"version": "99.0"}
        page.clock.fast_forward("01:01")
        expect(mark).to_be_visible()
        answers.changes = {}
        put(page, "hidden")
        put(page, "visible")
        expect(mark).to_have_count(0)
        # What was known stays.
        tab.expected = ("503",)
        answers.status = 503
        with page.expect_response(PATH):
            page.clock.fast_forward("01:01")
        expect(row(page, "press-1")).to_be_visible()
        expect(name).to_have_value("press")
        page.unroute_all(behavior="ignoreErrors")


def test_who_has_no_right_is_asked_for_when_somebody_comes_back_and_not_before(opening: Opening) -> None:
    with opening() as tab:
        answers = refused(tab, 503, "hidden")
        page = tab.page
        asked, answers.status = answers.asked, 403
        page.clock.fast_forward("10:00")
        with page.expect_response(PATH):
            put(page, "visible")
        expect(page.get_by_role("alert")).to_contain_text("It is a 403.")
        assert answers.asked == asked + 1, "it was asked for in a hidden tab"
        page.clock.fast_forward("10:00")
        answers.status = 200
        put(page, "hidden")
        put(page, "visible")
        expect(row(page, "press-1")).to_be_visible()
        assert answers.asked == asked + 2


@pytest.mark.parametrize(("status", "seconds"), [(503, 4), (401, 61)])
def test_a_login_is_waited_for_longer_than_a_server(opening: Opening, status: int, seconds: int) -> None:
    with opening() as tab:
        answers = refused(tab, status)
        page = tab.page
        asked, answers.status = answers.asked, 200
        if status == 401:
            page.clock.fast_forward(4_000)
            assert answers.asked == asked
        page.clock.fast_forward(seconds * 1000)
        expect(row(page, "press-1")).to_be_visible()
