"""Files that are written in one step, those that a power cut must leave whole, and those that one process has; and
records that are read whatever became of them."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def write(path: Path, text: str, lasting: bool = False) -> None:
    """Write a file in one step, readable by its owner only; ``lasting``: return when a power cut leaves it whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text)
            handle.flush()
            if lasting:
                os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        # Its bytes may be what fills the disk.
        with suppress(OSError):
            temporary.unlink()
        raise
    if lasting:
        keep_names(path.parent)


@cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record)


def read(path: Path, record: type[T]) -> T | None:
    """Return the record, a dataclass, that a file holds as JSON; None where there is none. Raises ValueError and
    OSError. What a newer daemon has added is left out; what an older one has not written needs a default."""
    kind: Any = record
    try:
        # Not by pydantic's own reader: in an error there may be the name of a file that is no text.
        found: T = _adapter(kind).validate_python(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValidationError as wrong:
        what = wrong.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{path.name}: {'.'.join(map(str, what['loc']))}: {what['msg']}") from None
    except (ValueError, RecursionError) as wrong:
        raise ValueError(f"{path.name}: {wrong}") from None
    return found


def keep_names(folder: Path) -> None:
    """Bring to the disk which files a folder holds, where the system lets a folder be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(handle: IO[str]) -> bool:
    """Return whether the file is this process's alone, until it is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
