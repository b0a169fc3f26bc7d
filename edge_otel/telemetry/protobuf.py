"""The least of protobuf's wire format: enough to walk a message without parsing it. Pure.

Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at this place, and the place behind it.

    Raises IndexError where the bytes end within it, ValueError where it has too many.
    """
    value = shift = 0
    while shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")
