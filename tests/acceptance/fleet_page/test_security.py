"""Who may do what, requests that other sites' pages make, and texts that try to be a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
from playwright.sync_api import expect

from acceptance.fleet_page.conftest import SHORT_XSS, XSS, Opening
from acceptance.fleet_page.site import FleetSite
from acceptance.fleet_page.test_actions import begin, confirm, row
from edge_otel.api.ui_access import ACTION_HEADER

DEED = {"selection": {"names": ["press-1"]}, "action": {"kind": "maintenance_on", "comment": "forged"}}


def act(fleet: FleetSite, user: str, **headers: str) -> requests.Response:
    """Ask for a maintenance with a user's cookie, as a browser would."""
    url = f"{fleet.cluster.edge_url}/ui/actions"
    cookies = {"_token": fleet.login(user)}
    return requests.post(url, json=DEED, headers=headers, cookies=cookies, timeout=60)


def test_a_viewer_sees_the_fleet_and_can_change_nothing(fleet: FleetSite, opening: Opening) -> None:
    with opening("vic") as tab:
        page = tab.open()
        expect(row(page, "press-1")).to_contain_text("idle")
        assert page.get_by_role("checkbox").count() == 0
        assert page.get_by_role("button", name="Actions").count() == 0
        assert page.get_by_role("link", name="Tokens").count() == 0
        page = tab.open(".edge-section", worker="press-1")
        assert page.get_by_role("button", name="Actions").count() == 0
        tab.open(view="tokens")
        expect(row(page, "press-1")).to_be_visible()
    for user in ("vic", "ursula"):
        refused = act(fleet, user, **{ACTION_HEADER: "1"})
        assert (refused.status_code, refused.json()["error"]) == (403, "NotPermitted")
    assert fleet.state("press-1") == "idle"


@pytest.mark.parametrize(
    "headers",
    [{}, {ACTION_HEADER: "1", "Sec-Fetch-Site": "cross-site"}, {ACTION_HEADER: "1", "Sec-Fetch-Site": "same-site"}],
)
def test_a_request_of_another_site_is_refused(fleet: FleetSite, headers: dict[str, str]) -> None:
    refused = act(fleet, "ann", **headers)
    assert (refused.status_code, refused.json()["error"]) == (403, "CrossSite")
    assert fleet.state("press-1") == "idle"


@pytest.fixture
def other_site() -> Iterator[str]:
    """The URL of a page on another port: another origin, to which browsers give the same cookies all the same."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>other</title>")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, name="other-site")
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


FORGERIES = {
    "simple": "fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body})",
    "typed": "fetch(url, {method: 'POST', credentials: 'include', body, headers: {'Content-Type': kind}})",
    "with the header": "fetch(url, {method: 'POST', credentials: 'include', body, headers: {[header]: '1'}})",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_another_origins_page_can_do_nothing_with_the_users_cookie(
    fleet: FleetSite, opening: Opening, other_site: str, forgery: str
) -> None:
    with opening() as tab:
        tab.expected = ("403", "CORS policy", "ERR_FAILED", "ERR_BLOCKED_BY_ORB")
        page = tab.page
        page.goto(other_site)
        url = f"{fleet.cluster.edge_url}/ui/actions"
        with page.expect_request(url):
            script = f"([url, body, header, kind]) => {FORGERIES[forgery]}.then(() => 'answered', () => 'refused')"
            assert page.evaluate(script, [url, json.dumps(DEED), ACTION_HEADER, "application/json"]) in (
                "answered",
                "refused",
            )
    assert fleet.state("press-1") == "idle"


def test_a_form_of_another_origins_page_is_refused(fleet: FleetSite, opening: Opening, other_site: str) -> None:
    with opening() as tab:
        tab.expected = ("403", "422")
        page = tab.page
        page.goto(other_site)
        # With this encoding a field's name, an equals sign and its value are the body: here, JSON.
        field = json.dumps(DEED)[:-1] + ', "x": "'
        script = """([url, name]) => {
            const form = document.createElement("form");
            Object.assign(form, { method: "post", action: url, enctype: "text/plain" });
            form.append(Object.assign(document.createElement("input"), { name, value: '"}' }));
            document.body.append(form);
            // Once this script has ended: it would not end on a page that is left.
            setTimeout(() => form.submit());
        }"""
        url = f"{fleet.cluster.edge_url}/ui/actions"
        with page.expect_response(url) as answer:
            page.evaluate(script, [url, field])
        assert answer.value.status in (403, 422)
        page.wait_for_url(url)
    assert fleet.state("press-1") == "idle"


@pytest.mark.usefixtures("evil")
def test_texts_of_workers_and_users_are_shown_as_they_are_and_never_run(opening: Opening) -> None:
    with opening() as tab:
        tab.expected = ("404 (", "422 (")
        page = tab.open()
        expect(row(page, "evil")).to_contain_text(f"“{XSS}” at the site")
        expect(row(page, "evil")).to_contain_text(XSS)
        expect(row(page, "team-1")).to_contain_text(f"team {SHORT_XSS}")
        expect(row(page, "team-1")).to_contain_text(f"edge {XSS}")
        expect(row(page, "team-1")).to_contain_text(f"Airflow {XSS}")
        confirm(begin(page, "press-2", "Maintenance on"), "Maintenance on", comment=XSS).press("Escape")
        expect(row(page, "press-2")).to_contain_text(XSS)
        page = tab.open(".edge-section", worker="evil")
        expect(page.get_by_label("Log of evil")).to_contain_text(f"ERROR {SHORT_XSS} {XSS}")
        expect(page.get_by_label("Facts that it reports")).to_contain_text(XSS)
        expect(page.locator("table")).to_contain_text(XSS)
        page = tab.open(".edge-section", worker="press-2")
        expect(page.get_by_label("History, the newest first")).to_contain_text(f"maintenance on: {XSS}")
        page = tab.open(view="queues")
        page.get_by_role("row", name=XSS).get_by_role("link", name="jobs").click()
        expect(page.get_by_role("button", name="Any queue")).to_contain_text(XSS)
        expect(page.locator("tbody tr")).to_have_count(2)
        for link in page.locator("tbody a").all():
            assert (link.get_attribute("href") or "").startswith(("/dags/everything/runs/", "/plugin/edge"))
        page = tab.open(".edge-alert", worker=XSS)
        page = tab.open(".edge-empty", search=SHORT_XSS, state="idle")
