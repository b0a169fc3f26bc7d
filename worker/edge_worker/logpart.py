"""Parts of a job's log: bytes of a file, or a line of the daemon's own."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

HEAD = 64
"""Bytes by which a file that was written anew is told from one that has grown."""


@dataclass(eq=False)
class Part:
    """Bytes ``start`` to ``end`` of a log: those of a file from its byte ``skip`` on, or a line of our own."""

    start: int
    length: int
    descriptor: int = -1
    skip: int = 0
    identity: tuple[int, int] = (0, 0)
    """Device and inode."""
    head: bytes = b""
    note: bytes = b""

    @property
    def end(self) -> int:
        """Where the next part begins."""
        return self.start + self.length

    def size(self) -> int:
        """Return the size of the file. Raises OSError."""
        return os.fstat(self.descriptor).st_size

    def first_bytes(self) -> bytes:
        """Return what the file begins with. Raises OSError."""
        return self._read(0, HEAD)

    def read(self, offset: int, most: int) -> bytes:
        """Return up to ``most`` bytes at an offset of the log. Raises OSError."""
        at, most = offset - self.start, min(most, self.end - offset)
        return self.note[at : at + most] if self.descriptor < 0 else self._read(self.skip + at, most)

    def _read(self, at: int, most: int) -> bytes:
        os.lseek(self.descriptor, at, os.SEEK_SET)
        return os.read(self.descriptor, most)


def identity(path: Path) -> tuple[int, int]:
    """Return device and inode of the file at a path. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino


def open_part(path: Path, root: Path, start: int) -> Part:
    """Return a file as the part that begins at ``start``. Raises OSError, also where a link leads out of ``root``."""
    real = path.resolve(strict=True)
    if not real.is_relative_to(root.resolve(strict=True)):
        raise OSError(0, "it leads out of the job's folder")
    # What looks like a file may be a pipe by now, whose opening would wait.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(real, flags)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a file")  # noqa: TRY301 - as any other reason
        part = Part(start, found.st_size, descriptor, identity=(found.st_dev, found.st_ino))
        part.head = part.first_bytes()
    except OSError:
        os.close(descriptor)
        raise
    return part
