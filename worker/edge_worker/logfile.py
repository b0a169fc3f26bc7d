"""A job's log as one stream of bytes that only grows, whatever happens to the file that it is read from.

The file is held open: what is removed or renamed is still read to its end, and a file that takes its place continues
the stream. Where bytes are gone that were not sent yet, the stream says so in a line of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_worker import logmemory, tasklog
from edge_worker.logmemory import Known
from edge_worker.logpart import Part, identity, open_part
from edge_worker.logplan import begins_as_before, kept

log = logging.getLogger(__name__)

BLOCK = 256 * 1024
"""Bytes that are read at once for the checksum."""
MOST_PARTS = 32
"""Files and lines of our own that are kept for a server which has lost bytes; each file costs a descriptor."""


class LogFile:
    """Any thread may call any method; those that read block."""

    def __init__(self, path: Path | None, root: Path, memory: Path) -> None:
        """``path`` is below ``root``, None where there is no log; ``memory`` is for the next daemon."""
        self._path, self._root, self._memory = path, root, memory
        self._known = logmemory.read(memory)
        self._remembered: object = None
        self._parts: list[Part] = []
        self.losses = 0
        """How often bytes went missing."""
        self._end = 0
        self._taken = 0
        """Bytes that were read for the server, of which this is the last."""
        self._last = b""
        self._digest: Any = hashlib.sha256()
        """None when bytes are gone that it covers, or should."""
        self._hashed = 0
        self._doubt = False
        """The file is not the one that an earlier daemon has read."""
        self._trouble = ""
        self._gone = self._frozen = self._closed = False
        self._lock = threading.Lock()

    @property
    def end(self) -> int:
        """Length of the stream, as of the last look."""
        return self._end

    def look(self) -> int:
        """Notice what has become of the file; return the length of the stream."""
        with self._lock:
            self._look()
            return self._end

    def resume(self, cursor: int) -> None:
        """Go on where an earlier daemon stopped: the server has ``cursor`` bytes."""
        with self._lock:
            self._look()
            self._taken, file = cursor, self._file
            if cursor > self._end or self._doubt or (file is None and self._known is not None):
                what = "is gone" if file is None else "is another one now" if self._doubt else "was cut"
                if file is not None and not self._doubt:
                    file.skip, file.length = file.skip + file.length, 0
                text = f"The log file {what}: what it held from byte {cursor} on is missing."
                self._lose(cursor, text, [file] if file is not None else [])
            self._known, self._doubt = None, False
            self._remember()

    def read(self, offset: int, most: int) -> bytes:
        """Return up to ``most`` bytes for the server, or none yet. A line that says so is in the place of lost ones."""
        with self._lock:
            self._examine()
            after = [part for part in self._parts if part.end > offset]
            if not after:
                return b""
            if offset < after[0].start:
                self._lose(offset, f"Bytes {offset} to {after[0].start - 1} of this log are missing.", after)
            data = self._at(offset, most)
            if not data and self._frozen:
                self._lose(offset, self._missing_until(self._end, offset))
                data = self._at(offset, most)
            if offset + len(data) >= self._taken:
                self._taken, self._last = offset + len(data), data[-1:]
            return data

    def hash(self, most: int) -> bool:
        """Take up to ``most`` bytes more into the checksum; return whether there are more."""
        while most > 0:
            with self._lock:
                if self._digest is None or self._hashed >= self._end:
                    return False
                data = self._at(self._hashed, min(BLOCK, most))
                if not data:
                    return False
                self._digest.update(data)
                self._hashed += len(data)
                most -= len(data)
        return True

    def finish(self, within: float) -> tuple[int, str | None]:
        """Let the stream end here; return its length, and its SHA-256 if it is there ``within`` seconds."""
        deadline = time.monotonic() + within
        with self._lock:
            self._look()
            if late := self._late(replaced=True):
                self._lose(self._end, f"{late} bytes are missing that a log file got after it was replaced.")
            if self._trouble:
                self._lose(self._end, f"The log file cannot be read ({self._trouble}): what it holds is missing.")
            self._frozen = True
        while self.hash(16 * BLOCK):
            if time.monotonic() > deadline:
                log.warning("%s has grown too fast for a checksum", self._path)
                self._digest = None
        whole = self._digest is not None and self._hashed == self._end
        return self._end, self._digest.hexdigest() if whole else None

    def freeze(self, length: int) -> None:
        """Let the stream end where an earlier daemon has told that it does."""
        with self._lock:
            if self._frozen:
                # What has become of it since it was measured is said in it.
                return
            self._look()
            self._frozen = True
            if self._end < length:
                self._lose(self._end, self._missing_until(length, self._end))
            elif self._end > length:
                self._shorten(length)

    def late(self) -> int:
        """Return how many bytes were written after the end."""
        with self._lock:
            return self._late(replaced=False)

    def close(self) -> None:
        """Hold no file any more."""
        with self._lock:
            self._closed = True
            self._keep([])

    @property
    def _file(self) -> Part | None:
        return next((part for part in reversed(self._parts) if part.descriptor >= 0), None)

    def _look(self) -> None:
        self._examine()
        if self._path is not None and not self._frozen and not self._closed:
            self._see(self._path)
            self._remember()

    def _examine(self) -> None:
        """Notice how the present file has changed."""
        file = self._file
        if file is None:
            return
        known = file.skip + file.length
        try:
            size = file.size()
            if size == known:
                return
            head = file.first_bytes()
        except OSError as error:
            self._stumble(error)
            return
        left = kept(known, size, begins_as_before(file.head, head))
        file.head = head
        if left is not None:
            self._cut(file, left, size)
        elif not self._frozen:
            file.length = size - file.skip
            self._end = file.end

    def _cut(self, file: Part, left: int, size: int) -> None:
        """Go on after the file has lost all but ``left`` of its bytes; it has ``size`` now."""
        here = max(0, left - file.skip)
        where = max(self._taken, file.start + here)
        gone = max(0, file.end - where)
        file.length = here
        anew = Part(where, 0 if self._frozen else size - left, file.descriptor, left, file.identity, file.head)
        text = f"The log file was cut here: {gone} bytes are missing, and what was written in the moment before."
        self._lose(where, text, [anew])

    def _see(self, path: Path) -> None:
        """Notice a file that was not there before, or is another one."""
        last = self._file
        try:
            if last is not None and last.identity == identity(path):
                self._trouble = ""
                return
            file = open_part(path, self._root, self._end)
        except FileNotFoundError:
            if last is not None and not self._gone:
                log.info("%s was removed; what is written to it is still read", path)
                self._gone = True
            self._trouble = ""
            return
        except OSError as error:
            self._stumble(error)
            return
        self._trouble, self._gone = "", False
        if last is not None:
            # It may have got its last bytes just before.
            self._examine()
            log.info("%s was replaced after %d bytes of the log", path, self._end)
            file.start = self._end
        elif self._known is not None:
            self._take_over(file, self._known)
        self._keep([*self._parts, file])
        self._end = file.end

    def _take_over(self, file: Part, known: Known) -> None:
        """Give the first file that this daemon sees its place in the stream."""
        self._known = None
        self._doubt = known.identity != file.identity or not begins_as_before(known.head, file.head)
        file.start, file.skip = known.start, 0 if self._doubt else min(known.skip, file.length)
        file.length -= file.skip
        if self._doubt or known.start or known.skip:
            self._digest = None

    def _lose(self, where: int, text: str, after: Sequence[Part] = ()) -> None:
        """Say at offset ``where`` what is missing there; the stream goes on with the parts ``after`` that, or ends."""
        log.warning("%s: %s", self._path, text)
        self.losses += 1
        note = tasklog.records([text], "warning")
        if where and (self._last if where == self._taken else self._at(where - 1, 1)) != b"\n":
            note = b"\n" + note
        self._shorten(where, after)
        self._keep([*self._parts, Part(where, len(note), note=note), *after])
        self._end = where + len(note)
        for part in after:
            part.start = self._end
            self._end = part.end
        self._taken = min(self._taken, where)
        if self._hashed > where:
            self._digest = None

    def _shorten(self, end: int, after: Sequence[Part] = ()) -> None:
        """Let the stream end earlier; the parts ``after`` that are kept for what follows."""
        before = [part for part in self._parts if part not in after and part.start <= end]
        for part in before:
            part.length = min(part.length, end - part.start)
        self._keep(before, after)
        self._end = end

    def _keep(self, parts: Sequence[Part], also: Sequence[Part] = ()) -> None:
        kept = list(parts[-MOST_PARTS:])
        used = {part.descriptor for part in (*kept, *also)}
        for descriptor in {part.descriptor for part in self._parts} - used - {-1}:
            os.close(descriptor)
        self._parts = kept

    def _missing_until(self, end: int, start: int) -> str:
        return f"Bytes {start} to {end - 1} of this log are missing: {self._trouble or 'the file has fewer'}."

    def _at(self, offset: int, most: int) -> bytes:
        part = next((part for part in self._parts if part.end > offset), None)
        if part is None or offset < part.start:
            return b""
        try:
            return part.read(offset, most)
        except OSError as error:
            self._stumble(error)
            return b""

    def _late(self, replaced: bool) -> int:
        """Return how many bytes the files have beyond what is in the stream; ``replaced``: without the present one."""
        late, seen = 0, {file.identity} if replaced and (file := self._file) is not None else set()
        for part in reversed(self._parts):
            if part.descriptor >= 0 and part.identity not in seen:
                seen.add(part.identity)
                try:
                    late += max(0, part.size() - part.skip - part.length)
                except OSError as error:
                    self._stumble(error)
        return late

    def _stumble(self, error: OSError) -> None:
        why = error.strerror or str(error)
        if why != self._trouble:
            log.warning("%s cannot be read: %s", self._path, why)
        self._trouble = why

    def _remember(self) -> None:
        file = self._file
        if file is not None and file.head and not self._doubt:
            place = (file.identity, file.start, file.skip)
            if self._remembered != place:
                logmemory.write(self._memory, Known(*place, file.head))
                self._remembered = place
