"""A server that hangs: the page says so, and nobody is told that nothing was done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import expect

from acceptance.fleet_page.conftest import Opening
from acceptance.fleet_page.site import FleetSite
from acceptance.fleet_page.test_actions import begin, row


@contextmanager
def hanging(fleet: FleetSite) -> Iterator[None]:
    """Have the API server stand still: connections open, and no answer comes."""
    group = fleet.cluster.processes["api-server"].pid
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


def test_a_server_that_hangs_is_said(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        with hanging(fleet):
            alert = page.get_by_role("alert")
            expect(alert).to_contain_text("The server does not answer. It is tried again every few seconds.")
            expect(page.get_by_text("not updated", exact=True)).to_be_visible()
            page.get_by_role("button", name="Pause").click()
            expect(alert).not_to_contain_text("tried again")
            page.get_by_role("button", name="Resume").click()
        expect(alert).to_have_count(0)


def test_colours_that_do_not_come_are_not_waited_for(opening: Opening) -> None:
    with opening() as tab:
        tab.page.route("**/page.css", lambda _: None)
        tab.page.goto(f"{tab.url}/plugin/edge", wait_until="commit")
        expect(row(tab.page, "press-1")).to_be_visible(timeout=20_000)
        tab.page.unroute_all(behavior="ignoreErrors")


def test_an_action_whose_answer_is_lost_may_have_been_done(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        dialog = begin(page, "press-1", "Maintenance on")
        dialog.get_by_label("Comment").fill("slow line")
        dialog.get_by_role("button", name="Continue").click()
        go = dialog.get_by_role("button", name="Maintenance on: 1 worker")
        expect(go).to_be_visible()
        with hanging(fleet):
            go.click()
            expect(dialog.get_by_role("button", name="Stop")).to_be_focused()
            page.keyboard.press("Escape")
            expect(dialog.get_by_role("alert")).to_contain_text("it may have been done to 1 worker. Look at it")
            expect(dialog.get_by_label("Worker by worker")).to_contain_text("press-1 unknown: it may have been done")
        dialog.get_by_role("button", name="Do the rest").click()
        expect(dialog.get_by_text("1 worker done.")).to_be_visible()
        page.keyboard.press("Escape")
        expect(row(page, "press-1")).to_contain_text("“slow line”")
        dialog = begin(page, "press-1", "Maintenance off")
        dialog.get_by_role("button", name="Maintenance off: 1 worker").click()
        expect(dialog.get_by_text("1 worker done.")).to_be_visible()


def test_a_token_whose_answer_is_lost_may_be_in_the_list(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open(view="tokens")
        page.get_by_role("button", name="New token").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Worker, or glob").fill("kiln-1")
        with hanging(fleet):
            dialog.get_by_role("button", name="Create").click()
            dialog.get_by_role("button", name="Stop").click()
            expect(dialog.get_by_role("alert")).to_contain_text("a token may have been made. Look for it in the list")
        dialog.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="New token").click()
        dialog.get_by_label("Worker, or glob").fill("kiln-2")
        dialog.get_by_role("button", name="Create").click()
        expect(dialog.get_by_label("Token", exact=True)).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        expect(dialog.get_by_label("Token", exact=True)).to_be_visible()
        dialog.get_by_role("button", name="I have stored it").click()
        expect(dialog).to_have_count(0)
