"""What README and docs point to is there: pages, headings, files, and the texts of errors."""

from __future__ import annotations

import ast
import re

import pytest
from handbook import PAGES, ROOT, anchors, blocks, commands, inline, links

LANGUAGES = {"sh", "text", "python", "promql", "yaml", "nginx", "toml"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    broken = []
    for target in links(page):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        there = file.exists() and ROOT in file.parents
        if not there or (anchor and anchor not in set(anchors(str(file.relative_to(ROOT))))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert PAGES[page].count("```") == 2 * len(blocks(page)), "a fence that is no block's"


def test_every_page_is_reached_from_the_readme():
    reached, new = set(), {"README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        files = {((ROOT / page).parent / target.partition("#")[0]).resolve() for target in links(page)}
        new |= {name for name in PAGES if ROOT / name in files} - reached
    assert set(PAGES) - reached == set()


def test_commands_are_taken_from_blocks_whole_and_in_order():
    assert commands("docs/first-worker.md")[1:4] == [
        "export AIRFLOW__CORE__EXECUTOR=edge_otel.executor.EdgeExecutor",
        "export AIRFLOW__EDGE__API_ENABLED=True",
        "airflow db migrate",
    ]
    (start,) = [c for c in commands("docs/first-worker.md") if "edge-worker start" in c]
    assert "--name site-1 --queues default" in start, "a continued line is one command"


def texts_of_the_code():
    """Return all strings of the code, and its words as they are printed, with single spaces."""
    files = [*(ROOT / "edge_otel").rglob("*.py"), *(ROOT / "worker").rglob("*.py")]
    trees = [ast.parse(file.read_text()) for file in files]
    constants = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    found = [constant.value for constant in constants if isinstance(constant.value, str)]
    return "\0".join(" ".join(text.split()) for text in found)


FOREIGN = {"certificate verify failed", "could not be found"}
"""Texts of OpenSSL and of Airflow."""


def test_the_texts_of_errors_are_those_of_the_code():
    """A text in the first column of the tables is what is printed; ``…`` stands for what differs."""
    said = texts_of_the_code()
    cells = re.findall(r"^\| *(`[^|]+) \|", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    assert len(cells) > 25
    missing = []
    for cell in cells:
        for text in re.findall(r"`([^`]+)`", cell):
            for part in re.split(r"…|%s|\(\d+ Forbidden, error id", text):
                words = " ".join(part.split()).strip(" )(")
                if words and words not in said and words not in FOREIGN:
                    missing.append(words)
    assert missing == []


def endings_of_the_code():
    """Return outcome and ``error.type`` of all ways in which the code has a job end, signal 9 for all signals."""
    found = {("stale", "stale_claim"), ("stale", "cancelled")}
    for file in (ROOT / "worker" / "edge_worker").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Ending":
                outcome, kind = node.args[3:]
                found.add((outcome.value, "signal_9" if isinstance(kind, ast.JoinedStr) else kind.value))
    return found


def test_the_table_of_endings_has_all_that_there_are_and_no_other():
    told = []
    for cell in re.findall(r"^\| *(`(?:success|failed|killed|stale)`[^|]*) \|", PAGES["docs/jobs.md"], re.MULTILINE):
        outcome, *kinds = re.findall(r"`([^`]+)`", cell)
        told += [(outcome, kind) for kind in kinds or [None]]
    assert sorted(told, key=str) == sorted(endings_of_the_code(), key=str)


def test_inline_code_is_found():
    assert "airflow edge stop -w" in inline("docs/moving-from-edge3.md")
