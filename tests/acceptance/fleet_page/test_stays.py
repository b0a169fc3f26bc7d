"""What somebody types, picks and pauses stays as it is, wherever the page navigates and whatever happens to rows."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import text

from acceptance.fleet_page.conftest import Opening
from acceptance.fleet_page.site import FleetSite
from acceptance.fleet_page.test_actions import begin, confirm, row

PACE = 150.0
"""Milliseconds between two keys: the filter acts between them."""
PAUSE = 3000.0
"""Milliseconds from one answer to the next question."""


def test_letters_and_focus_stay_while_somebody_types_into_a_page_just_loaded(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        page.evaluate("document.querySelector('.edge-page').mine = true")
        page.get_by_role("button", name="Pause").click()
        name = page.get_by_label("Name")
        name.press_sequentially("press-1", delay=PACE)
        expect(page).to_have_url(re.compile(r"search=press-1$"))
        expect(name).to_have_value("press-1")
        expect(name).to_be_focused()
        name.press("Shift+Home")
        assert name.evaluate("box => [box.selectionStart, box.selectionEnd]") == [0, 7]
        expect(page.get_by_text("1 – 1 of 1 worker")).to_be_visible()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        assert page.evaluate("document.querySelector('.edge-page').mine"), "the page was made anew"


def test_picks_and_pause_stay_at_the_first_navigation(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        page.get_by_role("checkbox", name="Select press-1").check()
        page.get_by_role("button", name="Pause").click()
        sort(page, "Worker")
        expect(page.locator("tbody th a")).to_have_text(["press-2", "press-1", "oven-1"])
        expect(page.get_by_role("checkbox", name="Select press-1")).to_be_checked()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        page.get_by_role("link", name="Queues").click()
        expect(page.get_by_role("table", name="Queues")).to_be_visible()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()


def sort(page: Page, column: str) -> None:
    """Sort by a column, or the other way round."""
    page.get_by_role("columnheader", name=column).get_by_role("button").click()


def test_a_range_begins_at_the_worker_and_all_may_lack_some(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        page.get_by_role("checkbox", name="Select press-2").check()
        sort(page, "Worker")
        expect(page.locator("tbody th a")).to_have_text(["press-2", "press-1", "oven-1"])
        page.get_by_role("checkbox", name="Select press-1").click(modifiers=["Shift"])
        expect(page.get_by_text("2 selected")).to_be_visible()
        expect(page.get_by_role("checkbox", name="Select oven-1")).not_to_be_checked()

        page.get_by_role("button", name="Select all 3 that match").click()
        expect(page.get_by_text("all 3 workers selected")).to_be_visible()
        page.get_by_role("checkbox", name="Select press-1").uncheck()
        page.get_by_role("button", name="Actions ▾").click()
        page.get_by_role("button", name="Shut down").click()
        dialog = page.get_by_role("dialog", name="Shut down: 2 workers: all that match but for 1")
        expect(dialog.get_by_text("This will be done to 2 workers.")).to_be_visible()


def test_an_open_menu_stays_while_its_row_would_move(fleet: FleetSite, opening: Opening) -> None:
    query = "UPDATE edge_otel_worker SET state_since = now() - make_interval(hours => :hours) WHERE name = :name"

    def put(*names: str) -> None:
        with fleet.session() as session:
            for hours, name in enumerate(reversed(names)):
                session.execute(text(query), {"hours": hours, "name": name})

    put("press-1", "press-2", "oven-1")
    with opening() as tab:
        page = tab.open(sort="since")
        names = page.locator("tbody th a")
        expect(names).to_have_text(["press-1", "press-2", "oven-1"])
        page.get_by_role("button", name="Actions for press-1").click()
        item = page.get_by_role("button", name="Maintenance on")
        expect(item).to_be_focused()
        put("press-2", "oven-1", "press-1")
        page.wait_for_timeout(2 * PAUSE)
        expect(item).to_be_focused()
        page.keyboard.press("Escape")
        expect(names).to_have_text(["press-2", "oven-1", "press-1"])


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_an_address_cannot_have_is_one_that_is_not_there(opening: Opening, name: str) -> None:
    with opening() as tab:
        tab.expected = ("422 (",)
        page = tab.open(".edge-alert", worker=name)
        expect(page.get_by_role("alert")).to_contain_text("worker_name: String should match pattern")


def test_a_page_beyond_the_last_is_the_last(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open(offset="5000", limit="2")
        expect(page.locator("tbody th a")).to_have_text(["press-2"])
        expect(page.get_by_text("3 – 3 of 3 workers")).to_be_visible()
        expect(page).to_have_url(re.compile("offset=2"))


def test_a_worker_removed_in_its_own_view_leads_to_the_others(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        # The view of a worker that is gone is refused.
        tab.expected = ("404 (Not Found)",)
        page = tab.open()
        page.get_by_role("checkbox", name="Select oven-1").check()
        fleet.cluster.end("oven-1")
        expect(row(page, "oven-1")).to_contain_text("offline")
        page.get_by_role("link", name="oven-1").click()
        expect(page.get_by_role("heading", name="Host")).to_have_text("Host the last hour that it was there")
        page.get_by_role("button", name="Actions ▾").click()
        page.get_by_role("button", name="Remove").click()
        dialog = confirm(page.get_by_role("dialog"), "Remove")
        expect(page.locator(".edge-view > .edge-alert")).to_be_visible()
        dialog.get_by_role("button", name="Close").click()
        expect(row(page, "press-1")).to_be_visible()
        expect(page.get_by_role("heading", name="Edge workers")).to_be_focused()


def test_a_worker_removed_leaves_the_selection(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        page.get_by_role("checkbox", name="Select oven-1").check()
        page.get_by_role("checkbox", name="Select press-1").check()
        fleet.cluster.end("oven-1")
        expect(row(page, "oven-1")).to_contain_text("offline")
        dialog = confirm(begin(page, "oven-1", "Remove"), "Remove")
        expect(row(page, "oven-1")).to_have_count(0)
        dialog.get_by_role("button", name="Close").click()
        expect(page.get_by_text("1 selected")).to_be_visible()
        expect(page.get_by_role("heading", name="Edge workers")).to_be_focused()


def test_of_two_filters_that_follow_each_other_at_once_none_is_lost(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open(search="press", state=["idle", "unknown", "offline"])
        for state in ("unknown", "offline"):
            expect(page.get_by_role("button", name=state)).to_have_attribute("aria-pressed", "true")
        page.evaluate(
            """async () => {
                for (const state of ["unknown", "offline"]) {
                    [...document.querySelectorAll(".edge-chip")].find((one) => one.textContent.includes(state)).click();
                    await new Promise((done) => setTimeout(done));
                }
            }"""
        )
        expect(page).to_have_url(re.compile(r"\?search=press&state=idle$"))
        expect(page.get_by_text("1 – 2 of 2 workers")).to_be_visible()


def test_the_back_button_leads_to_the_page_that_was_left_by_a_filter(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open(limit="1", offset="2")
        names = page.locator("tbody th a")
        expect(names).to_have_text(["press-2"])
        confirm(begin(page, "press-2", "Maintenance on"), "Maintenance on", comment="belt").press("Escape")
        page.get_by_role("button", name="maintenance mode").click()
        expect(page.get_by_text("1 – 1 of 1 worker")).to_be_visible()
        page.go_back()
        expect(page.get_by_text("3 – 3 of 3 workers")).to_be_visible()
        expect(names).to_have_text(["press-2"])


def test_who_looks_is_asked_for_again_while_the_page_is_there_and_no_longer(opening: Opening) -> None:
    with opening() as tab:
        tab.expected = ("503",)
        page = tab.page
        first: list[Route] = []
        asked: list[str] = []

        def refuse(route: Route) -> None:
            route.fulfill(status=503, json={"detail": "No database."})

        page.on("request", lambda request: asked.append(request.url) if "/ui/context" in request.url else None)
        page.route("**/ui/context", lambda route: refuse(route) if first else first.append(route))
        page.goto(f"{tab.url}/plugin/edge")
        # The first answer comes once Airflow has made the page anew.
        page.locator(".edge-page").wait_for(state="attached")
        refuse(first[0])
        expect(page.get_by_role("alert")).to_contain_text("No database.")
        page.get_by_role("link", name="Home").first.click()
        expect(page.get_by_role("alert")).to_have_count(0)
        asked.clear()
        page.wait_for_timeout(2 * PAUSE)
        assert asked == []
