"""Whether a remote log has an upload of which no answer came: it does not say so, but shows what it has."""

from __future__ import annotations

from typing import Any

from edge_otel.errors import EdgeError


class Unclear(EdgeError):
    """The remote log does not say whether it has this log already."""


def has(sources: list[str], found: Any, path: str, end: str, before: str, least: int) -> bool:
    """Return whether what a remote log answers holds a log that ends so. Raises Unclear where nobody can tell.

    ``before``: how the log ended there before, empty where nothing of it was there; ``least``: its size, without which
    a log that repeats itself would be taken for its own beginning.
    """
    texts = [_plain(str(text)) for text in found or []]
    if len(texts) == len(sources) and any(path in source for source in sources):
        # Logs of triggers have a longer name.
        texts = [text for text, source in zip(texts, sources, strict=True) if source.endswith(path)]
    if any(text.endswith(_plain(end)) and size(text) >= least for text in texts):
        return True
    if texts and not (before and any(text.endswith(_plain(before)) for text in texts)):
        # Some answer with the reason why they cannot read it.
        raise Unclear
    return False


def _plain(text: str) -> str:
    # They read files in text mode.
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip()


def size(text: str) -> int:
    """Return how many characters a text has but for white space, of which remote logs change some."""
    return sum(map(len, text.split()))
