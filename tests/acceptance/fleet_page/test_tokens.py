"""Tokens made, replaced and ended on the page, and what that does to the worker that has one."""

from __future__ import annotations

import re

import requests
from handbook import blocks
from playwright.sync_api import expect

from acceptance.fleet_page.browser import grave_findings
from acceptance.fleet_page.conftest import Opening
from acceptance.fleet_page.site import FleetSite
from acceptance.fleet_page.test_actions import row
from demo.edge import EdgeWorker


def test_a_token_is_shown_once_starts_a_worker_and_is_replaced_and_revoked(fleet: FleetSite, opening: Opening) -> None:
    with opening("otto", permissions=["clipboard-read", "clipboard-write"]) as tab:
        page = tab.open(view="tokens")
        page.get_by_role("button", name="New token").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Worker, or glob").fill("lathe-1")
        dialog.get_by_label("Queues").fill("lathes, it's <b>")
        dialog.get_by_role("button", name="Create").click()
        token = dialog.get_by_label("Token", exact=True).input_value()
        assert re.fullmatch(r"ewt_[0-9a-f]{16}\.[\w-]{43}", token)
        commands = dialog.get_by_label("step 2 for edge-worker", exact=True).inner_text()
        assert f"--server {fleet.cluster.edge_url} --token-file token --name lathe-1" in commands
        assert r"--queues 'lathes,it'\''s <b>'" in commands
        assert token not in "".join(dialog.locator("pre").all_text_contents())
        dialog.get_by_role("button", name="Copy the token").click()
        expect(dialog.get_by_text("the token copied.")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == token
        dialog.get_by_role("button", name="I have stored it").click()
        expect(page.get_by_role("button", name="New token")).to_be_focused()
        assert token not in page.content()

        worker = EdgeWorker(fleet.cluster, "lathe-1", token=token, queues="lathes")
        worker.start()
        page.get_by_role("link", name="Workers").click()
        expect(row(page, "lathe-1")).to_contain_text("idle")

        page.get_by_role("link", name="Tokens").click()
        old = page.locator("tbody tr", has_text=token[4:20])
        old.get_by_role("button", name="Rotate").click()
        dialog.get_by_label("Hours").fill("1")
        dialog.get_by_role("button", name="Rotate").click()
        new = dialog.get_by_label("Token", exact=True).input_value()
        dialog.get_by_role("button", name="I have stored it").click()
        expect(old).to_contain_text(f"replaced by {new[4:20]}")
        expect(old).to_contain_text(re.compile("in (1 h|59 min)"))
        session = worker.status()["session"]
        assert answer(fleet, new, session) == answer(fleet, token, session) == 200

        old.get_by_role("button", name="Revoke").click()
        expect(dialog).to_contain_text("It is worthless at once")
        dialog.get_by_role("button", name="Revoke").click()
        expect(old).to_contain_text("revoked")
        fleet.cluster.wait(lambda: "refused" in fleet.daemon_log("lathe-1"), "the daemon to notice", 60)
        assert (answer(fleet, new, session), answer(fleet, token, session)) == (200, 403)
        fleet.cluster.forget("lathe-1").stop()
    events = fleet.rows("SELECT event, owner FROM log WHERE event LIKE 'edge_token%' AND owner = 'otto' ORDER BY id")
    assert [entry["event"] for entry in events] == ["edge_token_create", "edge_token_rotate", "edge_token_revoke"]


WAYS = {
    "edge-worker": "### By hand, or below another supervisor",
    "airflow edge worker": "### From Airflow's configuration",
    "systemd": "### As a service of systemd",
}
"""In the dialog, and the heading of docs/add-a-worker.md."""


def test_each_step_is_copied_alone_and_is_that_of_the_docs(fleet: FleetSite, opening: Opening) -> None:
    with opening(permissions=["clipboard-read", "clipboard-write"]) as tab:
        page = tab.open(".edge-filters", view="tokens")
        page.get_by_role("button", name="New token").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Worker, or glob").fill("site-2")
        dialog.get_by_label("Queues").fill("default, night")
        dialog.get_by_role("button", name="Create").click()
        ways = dialog.locator("details")
        expect(ways.locator("summary")).to_have_text([*WAYS])
        for (way, heading), shown in zip(WAYS.items(), ways.all(), strict=True):
            shown.evaluate("one => one.open = true")
            copied = []
            for copy in shown.get_by_role("button", name="Copy").all():
                copy.click()
                what = (copy.get_attribute("aria-label") or "").removeprefix("Copy ")
                expect(dialog.get_by_role("status")).to_have_text(f"{what} copied.")
                copied.append(page.evaluate("navigator.clipboard.readText()"))
            docs = [block.text.strip() for block in blocks("docs/add-a-worker.md", heading)]
            here = "https://central.example/edge_worker"
            assert [text.replace(fleet.cluster.edge_url, here) for text in copied] == docs
            # What follows it in a terminal would go into the token's file.
            assert [text.count("\n") for text in copied if "cat >" in text] == [0], way
        assert grave_findings(page) == []


def answer(fleet: FleetSite, token: str, session: str) -> int:
    """Return the HTTP status of a heartbeat with this token."""
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{fleet.cluster.edge_url}/v1/worker/lathe-1"
    facts = {"airflow_version": "3.3.2", "edge_provider_version": "0.1.0"}
    report = {"state": "idle", "sysinfo": facts, "queues": ["lathes"], "session": session}
    return requests.patch(url, json=report, headers=headers, timeout=60).status_code
