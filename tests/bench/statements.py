"""Counts the statements that PostgreSQL is sent, in its own log: exact, and told apart by database and client."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from demo.wait import wait_for

BENCH = "edge-bench"
"""Application name of the benchmark's own connections, which are not counted."""
SETTLING = 0.5
"""Seconds in which every backend has read the changed settings, and all lines are in the file."""

_ENTRY = re.compile(rb"^bench ([^/]*)/(\S*) LOG:  (?:statement|execute [^:]*): (.*)$")
_LITERAL = re.compile(r"E'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'")
_TABLE = re.compile(r"\b(edge_\w+|task_instance|dag_run|serialized_dag)\b")


class StatementLog:
    """The log of one server, read for one database."""

    def __init__(self, url: str, log: Path) -> None:
        self._log = log
        self._database = url.rpartition("/")[2].encode()
        self._connection = psycopg2.connect(url.replace("+psycopg2", ""), application_name=BENCH)
        self._connection.autocommit = True

    def close(self) -> None:
        """Close the connection that changes the server's settings."""
        self._connection.close()

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Yield a counter that holds, after the ``with`` block, the statements by their verb and table."""
        counted: Counter[str] = Counter()
        self._set("all")
        begin = self._log.stat().st_size
        try:
            yield counted
        finally:
            end = self._log.stat().st_size
            self._set("none")
        with self._log.open("rb") as log:
            log.seek(begin)
            # A statement of several lines goes on in lines that begin with a tab.
            for entry in log.read(end - begin).replace(b"\n\t", b" ").splitlines():
                found = _ENTRY.match(entry)
                if found and found[1] == self._database and found[2] != BENCH.encode():
                    counted.update(map(kind, statements(found[3].decode(errors="replace"))))

    def _set(self, which: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM SET log_line_prefix = 'bench %d/%a '")
            cursor.execute(f"ALTER SYSTEM SET log_statement = '{which}'")
            cursor.execute("SELECT pg_reload_conf()")

            def in_force() -> bool:
                cursor.execute("SHOW log_statement")
                return bool(cursor.fetchone()[0] == which)

            wait_for(in_force, "PostgreSQL to read its settings", timeout=20, pause=0.05)
        time.sleep(SETTLING)


def statements(text: str) -> list[str]:
    """Return the statements of one message: drivers join those of a batch."""
    return [part for part in _LITERAL.sub("''", text).split(";") if part.strip()]


def kind(statement: str) -> str:
    """Return a statement's verb, and the first table of interest that it names."""
    words = statement.split(None, 1)
    verb = words[0].upper()
    table = _TABLE.search(statement)
    return f"{verb} {table[1]}" if table else verb
