"""The files of the fleet page, and the address that a browser finds them at."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent / "ui"


def edition() -> str:
    """Return what names the files as they are now: another name after a change to any of them. With it in their address
    a browser keeps them for good, and never mixes old and new ones.

    They are looked at each time: an upgrade replaces them while a server runs.
    """
    found = sha256()
    for file in sorted(FOLDER.iterdir()):
        found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:16]
