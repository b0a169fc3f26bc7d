"""A real headless Chromium, and tabs that notice whatever goes wrong in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect, sync_playwright

LONG = 60_000.0
"""Milliseconds."""
GRAVE = ("serious", "critical")
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}


def find_chromium() -> str | None:
    """Return the path of Debian's Chromium, or None."""
    return shutil.which("chromium")


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """Run a browser. Root may not use its sandbox, and a container's /dev/shm is small."""
    expect.set_options(timeout=LONG)
    with sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """One tab of a user: the fleet page in it, and what it complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()
        """Parts of complaints that belong to a test: a browser itself reports refused requests."""
        page.set_default_timeout(LONG)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("dialog", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _asked(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, shows: str = ".edge-table", **search: str | Sequence[str]) -> Page:
        """Open the fleet page with these search parameters; it is there when ``shows`` is."""
        self.page.goto(f"{self.url}/plugin/edge?{urlencode(search, doseq=True)}")
        self.page.locator(shows).first.wait_for()
        return self.page

    def check(self) -> None:
        """Fail if anything went wrong in this tab that the test did not provoke."""
        unexpected = [said for said in self.complaints if not any(part in said for part in self.expected)]
        assert not unexpected, "\n".join(unexpected)
        assert self.page.evaluate("window.__xss") is None, "a text of a worker or user was run as a script"


@contextmanager
def tab(browser: Browser, url: str, token: str | None, **options: Any) -> Iterator[Tab]:
    """Open a tab in a profile of its own, logged in by Airflow's cookie."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    if token is not None:
        context.add_cookies([{"name": "_token", "value": token, "url": url, "httpOnly": True, "sameSite": "Lax"}])
    try:
        opened = Tab(context.new_page(), url)
        yield opened
        opened.check()
    finally:
        context.close()


def grave_findings(page: Page) -> list[str]:
    """Return what axe finds serious or critical in the fleet page; the rest of the window is Airflow's."""
    found = Axe().run(page, context=".edge-page", options={"resultTypes": ["violations"]})
    return [
        f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found.response["violations"]
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]
