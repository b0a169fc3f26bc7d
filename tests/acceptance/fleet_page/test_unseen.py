"""What is told to who does not see the page, and where the focus is when what had it is gone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Locator, Page, expect

from acceptance.fleet_page.conftest import Opening
from acceptance.fleet_page.site import FleetSite
from edge_otel.models import tokens

STATUS = ".edge-page > [role=status]"


def status(page: Page) -> Locator:
    """Return what screen readers read when it changes."""
    return page.locator(STATUS)


def listen(page: Page) -> None:
    """Note from now on what is read."""
    page.evaluate(
        """(status) => {
            const region = document.querySelector(status);
            window.heard = [];
            const note = () => window.heard.push(region.textContent);
            new MutationObserver(note).observe(region, { childList: true, characterData: true, subtree: true });
        }""",
        STATUS,
    )


def heard(page: Page) -> list[str]:
    """Return what was there to read, an empty text where it was taken away before the next."""
    found: list[str] = page.evaluate("window.heard")
    return found


def test_what_a_filter_or_a_page_has_is_told_and_what_a_refresh_brings_is_not(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open(search="press-", limit="1")
        expect(status(page)).to_have_text("2 workers, 1 to 1")
        listen(page)
        page.get_by_role("button", name="Next").click()
        expect(status(page)).to_have_text("2 workers, 2 to 2")
        page.get_by_label("Name").fill("nobody")
        expect(status(page)).to_have_text("No worker matches this filter.")
        page.get_by_label("Name").fill("oven-1")
        expect(status(page)).to_have_text("1 worker")
        page.get_by_role("button", name=re.compile("^○? ?idle")).click()
        expect(page).to_have_url(re.compile("state=idle"))
        said = ["", "2 workers, 2 to 2", "", "No worker matches this filter.", "", "1 worker", "", "1 worker"]
        page.wait_for_function("(count) => window.heard.length >= count", arg=len(said))
        # The second one comes long after what the first would have had to say.
        for _ in range(2):
            with page.expect_response(re.compile("/ui/workers")):
                pass
        assert heard(page) == said


@pytest.mark.parametrize(("view", "text"), [("queues", "No queue matches."), ("jobs", "No job matches. Finished ones")])
def test_that_there_is_nothing_is_told_in_each_view(opening: Opening, view: str, text: str) -> None:
    with opening() as tab:
        page = tab.open(".edge-filters", view=view)
        expect(status(page)).not_to_be_empty()
        page.get_by_label({"queues": "Name", "jobs": "Task"}[view]).fill("nothing of this name")
        expect(status(page)).to_contain_text(text)


def test_the_same_twice_is_told_twice_and_the_focus_stays_near(fleet: FleetSite, opening: Opening) -> None:
    now = datetime.now(UTC)
    with fleet.session() as session:
        for name in ("stove-1", "stove-2"):
            tokens.create(session, worker=name, queues=None, team=None, lifetime=timedelta(days=1), now=now, by="ann")
    with opening() as tab:
        page = tab.open(view="tokens", search="stove")
        expect(status(page)).to_have_text("2 tokens")
        listen(page)
        for count in (1, 2):
            page.get_by_role("button", name=re.compile("^Revoke ")).first.click()
            page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
            page.wait_for_function("(count) => window.heard.length >= count", arg=2 * count)
            expect(page.locator("tbody").get_by_text("revoked")).to_have_count(count)
            expect(page.get_by_role("table", name="Worker tokens")).to_be_focused()
        assert heard(page) == ["", "The token is revoked."] * 2


def test_the_focus_stays_near_a_button_that_its_press_takes_away(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open(search="press-")
        page.get_by_role("checkbox", name="Select press-1").check()
        page.get_by_role("button", name="Clear").press("Enter")
        expect(page.get_by_role("group", name="Selection")).to_be_focused()
        page.get_by_role("button", name="Select all 2 that match").press("Enter")
        expect(page.get_by_role("group", name="Selection")).to_be_focused()
        page.get_by_label("Name").fill("nobody")
        page.get_by_role("link", name="Show all").press("Enter")
        expect(page.get_by_role("heading", name="Edge workers")).to_be_focused()
        page = tab.open(".edge-filters", view="jobs", queue_is="nothing")
        page.get_by_role("button", name="any queue").press("Enter")
        expect(page.get_by_role("search", name="Filter jobs")).to_be_focused()
