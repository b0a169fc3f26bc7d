"""What a busy task logs."""

from __future__ import annotations

import random

MEGABYTE = 1024 * 1024


def block() -> bytes:
    """Return a megabyte of whole lines as Airflow writes them: zlib leaves a tenth to a fifth of it."""
    chance, lines, size = random.Random(1), list[bytes](), 0
    while size < MEGABYTE:
        words = " ".join(chance.choice(("row", "batch", "read", "wrote", "skipped", "partition")) for _ in range(6))
        at = f"2026-01-01T00:{chance.randrange(60):02}:{chance.randrange(60):02}.{chance.randrange(10**6):06}Z"
        event = f"{words} {chance.randrange(10**9)} in {chance.random():.4f} s"
        text = f'{{"timestamp":"{at}","level":"info","event":"{event}","logger":"task.stdout"}}\n'
        lines.append(text.encode())
        size += len(text)
    return b"".join(lines)[: MEGABYTE - 1] + b"\n"
