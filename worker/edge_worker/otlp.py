"""The OTLP format as far as the daemon looks into it: is a request well-formed, and how much is in it.

Sources: https://opentelemetry.io/docs/specs/otlp/ and https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import importlib
import zlib
from typing import Literal

from edge_otel.telemetry.protobuf import varint

Signal = Literal["traces", "metrics", "logs"]

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")

CONTENT_TYPE = "application/x-protobuf"

MESSAGES: dict[Signal, tuple[str, str]] = {
    "traces": ("trace", "ExportTraceServiceRequest"),
    "metrics": ("metrics", "ExportMetricsServiceRequest"),
    "logs": ("logs", "ExportLogsServiceRequest"),
}


PARTS_MAX = 50_000
"""Groups, scopes and items of a request at most: exporters send hundreds."""

PARSED_MAX = 128 * 1024
"""Bytes of a request that is looked at as a whole."""

_GROUPS, _PARTS = 1 << 3 | 2, 2 << 3 | 2
"""Tags of fields 1 and 2 with a length."""


class TooLarge(ValueError):
    """More bytes than are allowed."""


def count(signal: Signal, body: bytes) -> int:
    """Return how many spans, metrics or log records a request holds; raises TooLarge, or ValueError where it is none.

    The three requests look alike: groups in field 1, in them scopes in field 2, in them items in field 2. Only that
    is walked: a message that is made for it becomes a hundred times larger when it is parsed, so only small ones are.
    """
    name = MESSAGES[signal][1]
    try:
        items = _items(body)
        if len(body) <= PARSED_MAX:
            _parse(signal, body)
    except TooLarge:
        raise
    except (ValueError, IndexError):
        raise ValueError(f"the body is not an {name}") from None
    return items


def _parse(signal: Signal, body: bytes) -> None:
    module, name = MESSAGES[signal]
    # The first time: some megabytes and milliseconds.
    types = importlib.import_module(f"opentelemetry.proto.collector.{module}.v1.{module}_service_pb2")
    from google.protobuf.message import DecodeError

    try:
        getattr(types, name).FromString(body)
    except DecodeError as error:
        raise ValueError(str(error)) from None


def _items(body: bytes) -> int:
    """Return the number of items; raises ValueError or IndexError where the bytes are not of that shape."""
    visited = items = 0
    # Spans of bytes to walk, each with its depth: 0 the request, 1 a group, 2 a scope.
    rest = [(0, len(body), 0)]
    while rest:
        at, end, depth = rest.pop()
        while at < end:
            visited += 1
            if visited > PARTS_MAX:
                raise TooLarge(f"more than {PARTS_MAX} items")
            tag, at = varint(body, at)
            kind = tag & 7
            if depth == 0 and tag != _GROUPS:
                raise ValueError("not a group")
            if kind == 0:
                at = varint(body, at)[1]
            elif kind == 2:
                length, start = varint(body, at)
                at = start + length
                if tag == _PARTS and depth == 2:
                    items += 1
                elif depth == 0 or (tag == _PARTS and depth == 1):
                    rest.append((start, at, depth + 1))
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                raise ValueError("a field of no kind that is in use")
        if at != end:
            raise ValueError("a field beyond its message")
    return items


def halves(body: bytes) -> tuple[bytes, bytes] | None:
    """Return a request as two, of the first and of the other groups; None where it has no two."""
    ends = []
    at = 0
    try:
        while at < len(body):
            length, start = varint(body, varint(body, at)[1])
            at = start + length
            ends.append(at)
    except (ValueError, IndexError):
        return None
    if len(ends) < 2:
        return None
    middle = ends[len(ends) // 2 - 1]
    return body[:middle], body[middle:]


def partial_success(rejected: int, text: str) -> bytes:
    """Return a response of any signal that says that ``rejected`` items were not taken: nobody sends them again."""
    message = text.encode()
    inner = b"\x08" + _encoded(rejected) + b"\x12" + _encoded(len(message)) + message
    return b"\x0a" + _encoded(len(inner)) + inner


def unzip(data: bytes, limit: int) -> bytes:
    """Return what a gzip stream holds; raises TooLarge beyond ``limit`` bytes, ValueError where it is damaged."""
    stream = zlib.decompressobj(wbits=31)
    try:
        found = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"the gzip stream is damaged: {error}") from None
    if len(found) > limit:
        raise TooLarge(f"more than {limit} bytes after decompression")
    if not stream.eof or stream.unused_data:
        raise ValueError("the gzip stream is incomplete, or something follows it")
    return found


def _encoded(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
