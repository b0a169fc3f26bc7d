"""README and the pages of ``docs/``: their blocks, commands, links and anchors."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = {
    str(file.relative_to(ROOT)): file.read_text()
    for file in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
}
"""Text of each page, by its path."""

_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>.*)\n(?P<text>(?:.*\n)*?)(?P=indent)```$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block."""

    language: str
    text: str


def blocks(page: str, heading: str = "") -> list[Block]:
    """Return the fenced blocks of a page in order, or those below a heading, such as ``## Later``, to the next one."""
    text = PAGES[page].partition(f"\n{heading}\n")[2].partition("\n#")[0] if heading else PAGES[page]
    return [Block(found["language"], textwrap.dedent(found["text"])) for found in _BLOCK.finditer(text)]


def commands(page: str) -> list[str]:
    """Return the command lines of a page's ``sh`` blocks in order: continued lines joined, comments gone."""
    lines = []
    for block in blocks(page):
        if block.language == "sh":
            text = re.sub(r" *\\\n *", " ", block.text)
            lines += [re.sub(r"(^|\s+)#.*$", "", line).strip() for line in text.splitlines()]
    return [command for line in lines if line for command in _parts(line)]


def _parts(line: str) -> list[str]:
    return [line] if line.startswith("(") else line.split(" && ")


def prose(page: str) -> str:
    """Return a page without its blocks."""
    return _BLOCK.sub("", PAGES[page])


def inline(page: str) -> list[str]:
    """Return what is code within a page's text."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def links(page: str) -> list[str]:
    """Return the targets of a page's links."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: str) -> Iterator[str]:
    """Yield the anchors of a page's headings, as GitHub makes them."""
    seen: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        yield anchor if anchor not in seen else f"{anchor}-{seen[anchor]}"
        seen[anchor] = seen.get(anchor, 0) + 1
