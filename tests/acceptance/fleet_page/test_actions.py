"""What an administrator does on the page, seen at the worker."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

from acceptance.fleet_page.conftest import Opening
from acceptance.fleet_page.site import LONG, FleetSite


def row(page: Page, name: str) -> Locator:
    """Return a worker's row."""
    return page.locator("tbody tr").filter(has=page.locator("th", has_text=re.compile(f"^{re.escape(name)}")))


def begin(page: Page, name: str, action: str) -> Locator:
    """Choose an action of a worker's menu, and return the dialog."""
    page.get_by_role("button", name=f"Actions for {name}").click()
    page.get_by_role("button", name=action).click()
    return page.get_by_role("dialog")


def confirm(dialog: Locator, action: str, workers: int = 1, **fields: str) -> Locator:
    """Fill the dialog in, confirm what it says would be done, and return it with what was done."""
    for label, value in fields.items():
        dialog.get_by_label(label.capitalize()).fill(value)
    if fields:
        dialog.get_by_role("button", name="Continue").click()
    some = f"{workers} worker{'s' if workers > 1 else ''}"
    expect(dialog.get_by_text(f"This will be done to {some}.")).to_be_visible()
    dialog.get_by_role("button", name=f"{action}: {some}").click()
    # Within the dialog: what is behind it is read to nobody.
    expect(dialog.get_by_role("status")).to_have_text(f"{some} done.")
    return dialog


def said(value: Any, *path: str) -> Any:
    """Return a part of a daemon's status."""
    for part in path:
        value = (value or {}).get(part)
    return value


def test_maintenance_with_its_comment_reaches_the_worker_and_ends(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        opener = page.get_by_role("button", name="Actions for press-1")
        dialog = confirm(begin(page, "press-1", "Maintenance on"), "Maintenance on", comment="new disks")
        dialog.get_by_role("button", name="Close").click()
        expect(opener).to_be_focused()
        fleet.wait_status("press-1", lambda s: said(s, "maintenance", "comment") == "new disks", "why it is maintained")
        expect(row(page, "press-1")).to_contain_text("“new disks” by an administrator")
        expect(row(page, "press-1")).to_contain_text("maintenance mode")
        confirm(begin(page, "press-1", "Edit comment"), "Edit comment", comment="new fans").press("Escape")
        fleet.wait_status("press-1", lambda s: said(s, "maintenance", "comment") == "new fans", "the new comment")
        confirm(begin(page, "press-1", "Maintenance off"), "Maintenance off").press("Escape")
        fleet.wait_status("press-1", lambda s: s["maintenance"] is None, "that maintenance is over")
        expect(row(page, "press-1")).to_contain_text("idle")
        page.get_by_role("link", name="press-1").click()
        history = page.get_by_label("History, the newest first")
        for did in ("maintenance on: new disks", "comment: new fans", "maintenance off"):
            expect(history.locator("li", has_text=did)).to_contain_text("by ann")
        expect(history).to_contain_text("registered")
        page.get_by_role("button", name="only what people did").click()
        expect(history).not_to_contain_text("registered")
        expect(history).to_contain_text("maintenance off")
    entries = fleet.rows("SELECT owner, extra FROM log WHERE event LIKE 'edge_worker_maintenance%' ORDER BY id")
    assert [entry["owner"] for entry in entries[-3:]] == ["ann"] * 3
    assert "new disks" in entries[-3]["extra"]


def test_queues_of_picked_workers_change_at_each_of_them(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        page.get_by_role("checkbox", name="Select press-1").check()
        # All from the last one on.
        page.get_by_role("checkbox", name="Select press-2").click(modifiers=["Shift"])
        expect(page.get_by_text("2 selected")).to_be_visible()
        page.get_by_role("button", name="Actions ▾").click()
        page.get_by_role("button", name="Add queues").click()
        confirm(page.get_by_role("dialog"), "Add queues", 2, queues="night, belts").press("Escape")
        for name in ("press-1", "press-2"):
            fleet.wait_status(name, lambda s: {"night", "belts", "default"} <= set(s["queues"]), "its new queues")
        assert "night" not in fleet.workers["oven-1"].status()["queues"]
        expect(page.get_by_text("2 selected")).to_be_visible()
        page.get_by_role("button", name="Actions ▾").click()
        page.get_by_role("button", name="Remove queues").click()
        confirm(page.get_by_role("dialog"), "Remove queues", 2, queues="night, belts").press("Escape")
        for name in ("press-1", "press-2"):
            fleet.wait_status(name, lambda s: set(s["queues"]) == {"default", "presses"}, "its old queues")


def test_slots_are_set_from_the_view_of_one_worker(fleet: FleetSite, opening: Opening) -> None:
    with opening("otto") as tab:
        page = tab.open(".edge-section", worker="oven-1")
        expect(page.get_by_label("Log of oven-1")).to_contain_text("registered as oven-1")
        page.get_by_role("button", name="Actions ▾").click()
        page.get_by_role("button", name="Set slots").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_label("Slots")).to_have_value("4")
        confirm(dialog, "Set slots", slots="7").press("Escape")
        fleet.wait_status("oven-1", lambda s: s["concurrency"] == 7, "its slots")
        expect(page.locator("dl").first).to_contain_text("0 / 7 slots")
        expect(page.get_by_label("History, the newest first")).to_contain_text("slots: 4 to 7")


def test_all_that_match_a_filter_are_meant_and_no_other(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        page.get_by_label("Queue").fill("press*")
        expect(page.get_by_text("1 – 2 of 2 workers")).to_be_visible()
        page.get_by_role("button", name="Select all 2 that match").click()
        page.get_by_role("button", name="Actions ▾").click()
        page.get_by_role("button", name="Maintenance on").click()
        dialog = page.get_by_role("dialog", name="Maintenance on: all 2 workers that match")
        confirm(dialog, "Maintenance on", 2, comment="the belt").press("Escape")
        for name in ("press-1", "press-2"):
            fleet.wait_status(name, lambda s: said(s, "maintenance", "comment") == "the belt", "its maintenance")
        assert fleet.workers["oven-1"].status()["maintenance"] is None
        page.get_by_role("button", name="Actions ▾").click()
        page.get_by_role("button", name="Maintenance off").click()
        confirm(page.get_by_role("dialog"), "Maintenance off", 2).press("Escape")
        for name in ("press-1", "press-2"):
            fleet.wait_status(name, lambda s: s["maintenance"] is None, "that maintenance is over")


def test_a_worker_is_shut_down_and_what_it_is_refused_then_is_said_before(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        daemon = fleet.cluster.forget("oven-1")
        confirm(begin(page, "oven-1", "Shut down"), "Shut down").press("Escape")
        assert daemon.wait(LONG) == 0
        expect(row(page, "oven-1")).to_contain_text("offline")
        page.get_by_role("checkbox", name="Select all on this page").check()
        page.get_by_role("button", name="Actions ▾").click()
        page.get_by_role("button", name="Set slots").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Slots").fill("4")
        dialog.get_by_role("button", name="Continue").click()
        expect(dialog.get_by_text("This will be done to 2 workers. 1 is refused:")).to_be_visible()
        expect(dialog.get_by_label("Worker by worker")).to_contain_text("oven-1 Worker 'oven-1' is in state 'offline'")
        dialog.get_by_role("button", name="Cancel").click()
        assert fleet.rows("SELECT 1 FROM edge_otel_worker WHERE slots_wanted = 4") == [], "a trial changes nothing"


def test_a_worker_that_is_gone_is_removed_and_may_come_again(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        fleet.cluster.end("oven-1")
        expect(row(page, "oven-1")).to_contain_text("offline")
        confirm(begin(page, "oven-1", "Remove"), "Remove").press("Escape")
        expect(row(page, "oven-1")).to_have_count(0)
        assert fleet.state("oven-1") is None
        fleet.start("oven-1")
        expect(row(page, "oven-1")).to_contain_text("idle")
