"""What the page shows, to whom, and whether everybody can use it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from acceptance.fleet_page.browser import DESKTOP, PHONE, grave_findings
from acceptance.fleet_page.conftest import Opening
from acceptance.fleet_page.site import PASSWORD, FleetSite
from acceptance.fleet_page.test_actions import begin, confirm, row
from acceptance.fleet_page.test_stays import PAUSE
from tests.integration import rows

VIEWS = {
    "workers": {},
    "worker": {"worker": "press-1"},
    "queues": {"view": "queues"},
    "jobs": {"view": "jobs"},
    "tokens": {"view": "tokens"},
}


def test_a_user_logs_in_and_finds_the_page_in_airflows_menu(fleet: FleetSite, chrome) -> None:
    page = chrome.new_context(viewport=DESKTOP).new_page()
    page.goto(fleet.cluster.url)
    page.locator("input[name=username]").fill("ann")
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Admin").click()
    page.get_by_role("menuitem", name="Edge workers").click()
    for name in fleet.workers:
        expect(row(page, name)).to_contain_text("idle", timeout=60_000)
    page.context.close()


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_nothing_is_in_the_way_of_anybody(opening: Opening, scheme: str, device: str) -> None:
    viewport = PHONE if device == "phone" else DESKTOP
    with opening(viewport=viewport, color_scheme=scheme, has_touch=device == "phone") as tab:
        for view, search in VIEWS.items():
            page = tab.open(".edge-table, .edge-section, .edge-empty", **search)
            assert page.evaluate("document.documentElement.className") == scheme
            assert grave_findings(page) == [], view
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), f"{view} scrolls sideways"
            assert not wider_than_the_page(page), view
        page = tab.open()
        begin(page, "press-1", "Maintenance on")
        assert grave_findings(page) == []


def test_long_words_are_broken_and_nothing_is_pushed_off_the_page(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        confirm(begin(page, "press-1", "Maintenance on"), "Maintenance on", comment="W" * 1024).press("Escape")
        page.get_by_role("link", name="Tokens").click()
        page.get_by_role("button", name="New token").click()
        page.get_by_role("dialog").get_by_label("Worker, or glob").fill("W" * 64)
        page.get_by_role("button", name="Create").click()
        page.get_by_role("button", name="I have stored it").click()
        for view in ("workers", "worker", "tokens"):
            tab.open(".edge-table, .edge-section", **VIEWS[view])
            expect(page.get_by_text("W" * 64).first).to_be_visible()
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), f"{view} scrolls sideways"
            assert not wider_than_the_page(page), view
        page = tab.open()
        confirm(begin(page, "press-1", "Maintenance off"), "Maintenance off").press("Escape")
        expect(row(page, "press-1")).to_contain_text("idle")


def wider_than_the_page(page: Page) -> list[str]:
    """Return the classes of what reaches beyond the window, but for what scrolls by itself."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll(".edge-page *")]
            .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
            .filter((one) => !one.closest("pre, .edge-unseen, .edge-chips, thead"))
            .map((one) => one.className)"""
    )
    return found


def test_what_has_the_focus_is_seen_on_a_narrow_page(opening: Opening) -> None:
    with opening(viewport=PHONE) as tab:
        page = tab.open()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('.edge-table') !== null"):
                assert page.evaluate(
                    """() => {
                        const one = document.activeElement, { x, y, width, height } = one.getBoundingClientRect();
                        const seen = document.elementFromPoint(x + width / 2, y + height / 2);
                        return one.contains(seen) || seen?.contains(one);
                    }"""
                ), page.evaluate("document.activeElement.outerHTML")


def test_filters_are_links_and_the_back_button_takes_them_back(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        page.get_by_label("Name").fill("OVEN")
        expect(page.get_by_text("1 – 1 of 1 worker")).to_be_visible()
        expect(page).to_have_url(re.compile(r"search=OVEN$"))
        page.get_by_role("button", name=re.compile("^○? ?idle")).click()
        expect(page).to_have_url(re.compile(r"search=OVEN&state=idle$"))
        page.get_by_role("link", name="oven-1").click()
        expect(page.get_by_role("heading", name="oven-1")).to_be_visible()
        page.go_back()
        expect(page.get_by_label("Name")).to_have_value("OVEN")
        expect(page.get_by_role("button", name=re.compile("^○? ?idle"))).to_have_attribute("aria-pressed", "true")
        page.reload()
        expect(row(page, "oven-1")).to_be_visible()
        expect(row(page, "press-1")).to_have_count(0)
        page.go_back()
        expect(page.get_by_role("button", name="all", exact=True)).to_have_attribute("aria-pressed", "true")


def test_columns_sort_and_pages_turn(opening: Opening) -> None:
    with opening() as tab:
        page = tab.open(limit="1", search="press-")
        names = page.locator("tbody th a")
        expect(names).to_have_text(["press-1"])
        page.get_by_role("button", name="Next").click()
        expect(names).to_have_text(["press-2"])
        page.get_by_role("button", name="Previous").click()
        expect(names).to_have_text(["press-1"])
        page.get_by_role("columnheader", name="Worker").get_by_role("button").click()
        expect(names).to_have_text(["press-2"])
        expect(page.get_by_role("columnheader", name="Worker")).to_have_attribute("aria-sort", "descending")


def test_a_change_is_seen_without_reload_unless_the_page_is_paused(fleet: FleetSite, opening: Opening) -> None:
    with opening() as tab:
        page = tab.open()
        page.evaluate("window.stays = true")
        expect(row(page, "press-2")).to_contain_text("idle")
        page.get_by_role("checkbox", name="Select press-2").check()
        page.get_by_label("Name").focus()
        fleet.cluster.end("press-2")
        expect(row(page, "press-2")).to_contain_text("offline")
        expect(page.get_by_role("checkbox", name="Select press-2")).to_be_checked()
        expect(page.get_by_label("Name")).to_be_focused()
        with page.expect_response(re.compile("/ui/workers")):
            page.get_by_role("button", name="Pause").click()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/ui/workers" in request.url else None)
        fleet.start("press-2")
        page.wait_for_timeout(2 * PAUSE)
        assert asked == []
        expect(row(page, "press-2")).to_contain_text("offline")
        page.get_by_role("button", name="Resume").click()
        expect(row(page, "press-2")).to_contain_text("idle")
        assert page.evaluate("window.stays"), "the window was loaded again"


def test_a_server_that_is_away_is_said_and_the_last_data_stay(opening: Opening) -> None:
    with opening() as tab:
        tab.expected = ("ERR_INTERNET_DISCONNECTED",)
        page = tab.open()
        page.context.set_offline(True)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text(
            "The server cannot be reached. It is tried again every few seconds. Not updated since"
        )
        expect(row(page, "press-1")).to_be_visible()
        page.context.set_offline(False)
        expect(alert).to_have_count(0)


def test_a_login_that_has_ended_is_said_with_the_way_to_another(opening: Opening) -> None:
    with opening() as tab:
        tab.expected = ("401 (Unauthorized)",)
        page = tab.open()
        page.context.clear_cookies()
        link = page.get_by_role("link", name="Log in again")
        expect(link).to_have_attribute("href", re.compile(r"/api/v2/auth/login\?next=http.*plugin%2Fedge"))
        link.click()
        expect(page.locator("input[name=username]")).to_be_visible()


def test_a_job_leads_to_its_task_its_log_and_its_worker(fleet: FleetSite, opening: Opening) -> None:
    run_id = fleet.trigger("everything")
    with opening() as tab:
        # Airflow's own page of a task may warn of what is its own.
        tab.expected = ("warning:",)
        page = tab.open(".edge-filters", view="jobs", run_id=run_id)
        job = page.locator("tbody tr", has_text="talkative")
        expect(job).to_contain_text("success")
        # What comes after the task's end, Airflow's page does not ask for by itself.
        whole = "SELECT 1 FROM edge_otel_log WHERE path LIKE :path AND upload <> 'none'"
        path = f"%run_id={run_id}/task_id=talkative/%"
        fleet.cluster.wait(lambda: fleet.rows(whole, path=path), "the log's file to be whole", 60)
        job.get_by_role("link", name=re.compile("press|oven")).click()
        expect(page.locator("tbody tr", has_text="talkative")).to_be_visible()
        page.go_back()
        job.get_by_role("link", name="log").click()
        # Airflow draws what is in sight and in no folded group, and what a task prints may come after its last group.
        expect(page).to_have_url(re.compile("/tasks/talkative[?]try_number=1$"))
        written = re.compile(r"^(line \d+|Done[.] Returned value was: None)$")
        expect(page.locator("code", has_text=written).first).to_be_visible()
        page.go_back()
        job.get_by_role("link", name="talkative").click()
        expect(page).to_have_url(re.compile("/dags/everything/runs/[^/]+/tasks/talkative$"))


def test_a_queue_that_nobody_serves_is_marked_and_leads_to_its_jobs(fleet: FleetSite, opening: Opening) -> None:
    fleet.trigger("elsewhere")
    with fleet.session() as session:
        rows.queue_job(session, datetime.now(UTC), dag_id="everything", task_id="near", queue="another")
    with opening() as tab:
        page = tab.open(view="queues")
        queue = page.locator("tbody tr").filter(has=page.locator("th", has_text=re.compile("^other$")))
        expect(queue).to_contain_text("no worker")
        expect(page.locator("tbody tr").first).to_contain_text("other")
        page = tab.open(view="queues", limit="1")
        page.get_by_label("Name").fill("DEF")
        expect(page.get_by_text("1 – 1 of 1 queue")).to_be_visible()
        expect(page.locator("tbody th")).to_have_text(["default"])
        page.get_by_label("Name").fill("")
        page.get_by_role("button", name="Next").click()
        expect(page).to_have_url(re.compile("offset=1"))
        expect(page.get_by_text("2 – 2 of")).to_be_visible()
        page = tab.open(view="queues")
        queue.get_by_role("link", name="1 job").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr")).to_contain_text("far")
        page.get_by_role("button", name="queue other ✕ any queue", exact=True).click()
        expect(page.locator("tbody tr", has_text="near")).to_be_visible()


def test_the_jobs_of_a_queue_of_no_team_are_not_those_of_a_team(fleet: FleetSite, opening: Opening) -> None:
    with fleet.session() as session:
        for team in ("red", None):
            rows.queue_job(session, datetime.now(UTC), dag_id="everything", task_id="own", queue="shared", team=team)
    with opening() as tab:
        for team, shown in (("red", "team red"), ("–", "no team")):
            page = tab.open(view="queues")
            queue = page.locator("tbody tr").filter(has=page.locator("th", has_text=re.compile("^shared$")))
            queue = queue.filter(has=page.locator("td[data-label=Team]", has_text=team))
            queue.get_by_role("link", name="1 job").click()
            expect(page.get_by_role("button", name=shown)).to_be_visible()
            expect(page.get_by_text("1 – 1 of 1 job")).to_be_visible()
    with fleet.session() as session:
        session.execute(rows.Job.__table__.delete().where(rows.Job.queue == "shared"))
