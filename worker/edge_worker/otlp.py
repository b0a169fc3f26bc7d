"""The OTLP format as far as the daemon looks into it: is a request well-formed, and how much is in it.

Source: https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any, Literal

Signal = Literal["traces", "metrics", "logs"]

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")

CONTENT_TYPE = "application/x-protobuf"

MESSAGES: dict[Signal, tuple[str, str]] = {
    "traces": ("trace", "ExportTraceServiceRequest"),
    "metrics": ("metrics", "ExportMetricsServiceRequest"),
    "logs": ("logs", "ExportLogsServiceRequest"),
}


class TooLarge(ValueError):
    """More bytes than are allowed."""


def count(signal: Signal, body: bytes) -> int:
    """Return how many spans, metrics or log records a request holds; raises ValueError where it is none.

    The first call loads the message types: some megabytes and milliseconds.
    """
    module, name = MESSAGES[signal]
    types = importlib.import_module(f"opentelemetry.proto.collector.{module}.v1.{module}_service_pb2")
    from google.protobuf.message import DecodeError

    request: Any = getattr(types, name)()
    try:
        request.ParseFromString(body)
    except DecodeError:
        raise ValueError(f"the body is not an {name}") from None
    if signal == "traces":
        return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
    if signal == "metrics":
        return sum(len(scope.metrics) for resource in request.resource_metrics for scope in resource.scope_metrics)
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)


def partial_success(rejected: int, text: str) -> bytes:
    """Return a response of any signal that says that ``rejected`` items were not taken: nobody sends them again."""
    message = text.encode()
    inner = b"\x08" + _varint(rejected) + b"\x12" + _varint(len(message)) + message
    return b"\x0a" + _varint(len(inner)) + inner


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


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
