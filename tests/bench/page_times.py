"""Times a side's page in a real Chromium, by the browser's own clock; prints figures as JSON on the last line.

It runs in our environment for both sides: only that one drives a browser.
"""

from __future__ import annotations

import json
import shutil
import statistics
from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, sync_playwright

PATIENCE = 300_000.0
"""Milliseconds."""
FIRST_ROWS = """
new MutationObserver(() => {
    if (window.firstRows === undefined && document.querySelector("tbody tr")?.textContent.includes(PART))
        requestAnimationFrame(() => { window.firstRows ??= performance.now(); });
}).observe(document, { childList: true, subtree: true });
"""
"""Notes when the first rows with a PART of a name are painted, counted from the beginning of the navigation."""
AFTER = """async ([act, part, text]) => {
    const done = () => {
        const rows = [...document.querySelectorAll("tbody tr")];
        return rows.length && rows.every((row) => row.textContent.includes(part));
    };
    const began = performance.now();
    if (act === "type") {
        const named = (one) => one.placeholder === text || one.labels?.[0]?.textContent === text;
        const input = [...document.querySelectorAll("input")].find(named);
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, part);
        input.dispatchEvent(new Event("input", { bubbles: true }));
    } else {
        [...document.querySelectorAll("button, a")].find((one) => one.textContent.includes(text)).click();
    }
    while (!done()) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return performance.now() - began;
}"""
"""Types into a field or presses a button, and returns after how many ms all rows have what they should."""


@dataclass(frozen=True)
class Pages:
    """Where a side shows its fleet and its jobs, and how they are filtered."""

    workers: str
    jobs: str
    worker_field: str
    queue_field: str
    jobs_field: str
    rounds: int = 5
    chips: bool = False
    """States are buttons."""


PAGES = {
    "ours": Pages("/plugin/edge", "/plugin/edge?view=jobs", "Name", "name or glob", "Task", chips=True),
    "edge3": Pages(
        "/plugin/edge_executor/worker",
        "/plugin/edge_executor/jobs",
        "Search workers",
        "Search queues",
        "Search Task ID",
        # It draws all workers at once.
        rounds=1,
    ),
}


def shown(page: Page, url: str, part: str, rounds: int) -> float:
    """Return the seconds from an address to the first rows of its view, with what the browser has kept."""
    page.add_init_script(FIRST_ROWS.replace("PART", json.dumps(part)))
    found = []
    for _ in range(rounds + 1):
        page.goto(url)
        page.wait_for_function("window.firstRows", timeout=PATIENCE)
        found.append(page.evaluate("window.firstRows") / 1000)
    # The first one fills the browser's cache, and logs in.
    return statistics.median(found[1:])


def filtered(page: Page, act: str, part: str, text: str) -> float:
    """Return the milliseconds from a filter to its rows."""
    return float(page.evaluate(AFTER, [act, part, text]))


def measure(page: Page, url: str, pages: Pages) -> dict[str, float]:
    """Return the figures."""
    found: dict[str, Any] = {"page_load_s": shown(page, url + pages.workers, "site", pages.rounds)}
    filters = []
    for number in range(pages.rounds):
        page.goto(url + pages.workers)
        page.wait_for_function("window.firstRows", timeout=PATIENCE)
        filters.append(filtered(page, "type", f"site-{number + 1}7", pages.worker_field))
    if pages.chips:
        page.goto(url + pages.workers)
        page.wait_for_function("window.firstRows", timeout=PATIENCE)
        found["page_chip_ms"] = filtered(page, "press", "running", "running")
    page.goto(url + pages.workers)
    page.wait_for_function("window.firstRows", timeout=PATIENCE)
    filters.append(filtered(page, "type", "queue-3", pages.queue_field))
    found["page_filter_ms"] = statistics.median(filters)
    found["page_filter_worst_ms"] = max([*filters, found.get("page_chip_ms", 0.0)])
    found["page_jobs_s"] = shown(page, url + pages.jobs, "bench", pages.rounds)
    found["page_jobs_filter_ms"] = filtered(page, "type", "t777", pages.jobs_field)
    return found


def main() -> None:
    """Measure one side."""
    parser = ArgumentParser()
    parser.add_argument("side", choices=PAGES)
    parser.add_argument("url")
    arguments = parser.parse_args()
    with sync_playwright() as driver:
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox", "--disable-dev-shm-usage"]}
        browser = driver.chromium.launch(**options)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE)
        found = measure(page, arguments.url, PAGES[arguments.side])
        browser.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
