"""Writes into telemetry whose it is, whatever its sender says of itself.

The three requests of OTLP look alike: field 1 repeats groups of telemetry, and field 1 of a group is its resource. Only
that much is parsed. The rest stays bytes: whole messages of a hostile sender could cost a hundred times their size.

Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import BytesValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from edge_otel.errors import NotOtlp, TooLarge
from edge_otel.telemetry import names
from edge_otel.telemetry.protobuf import varint

MAX_GROUPS = 10_000
MAX_RESOURCE = 64 * 1024
"""Bytes."""
MAX_ATTRIBUTES = 128
"""Of one resource."""

_GROUP = 1 << 3 | 2
"""Tag of field 1 with a length."""
_CLAIM = re.compile("[^a-z0-9]+".join(names.WORKER_NAME.split(".")), re.ASCII | re.IGNORECASE)
"""The key of the name, and all that a store may make the same label of."""


def stamped(request: bytes, worker: str) -> bytes:
    """Return the serialized Export…ServiceRequest with the worker's name on every resource.

    Raises NotOtlp for what is none, and TooLarge beyond the limits above.
    """
    parts: list[bytes] = []
    resources: dict[bytes, bytes] = {}
    try:
        for group in _groups(request):
            if len(parts) == MAX_GROUPS:
                raise TooLarge(f"The request has more than {MAX_GROUPS} resources. Send fewer at a time.")
            # A message whose only field is bytes, and that is field 1: all else is kept as it is.
            rest = BytesValue.FromString(group)
            if rest.value not in resources:
                resources[rest.value] = _with_name(rest.value, worker)
            rest.value = resources[rest.value]
            parts.append(BytesValue(value=rest.SerializeToString()).SerializeToString())
    except (DecodeError, IndexError, ValueError) as error:
        raise NotOtlp(reason=str(error)) from None
    return b"".join(parts)


def _with_name(text: bytes, worker: str) -> bytes:
    if len(text) > MAX_RESOURCE:
        raise TooLarge(f"A resource is larger than {MAX_RESOURCE} bytes.")
    resource = Resource.FromString(text)
    if len(resource.attributes) > MAX_ATTRIBUTES:
        raise TooLarge(f"A resource has more than {MAX_ATTRIBUTES} attributes.")
    others = [attribute for attribute in resource.attributes if not _CLAIM.fullmatch(attribute.key)]
    del resource.attributes[:]
    resource.attributes.extend(others)
    resource.attributes.add(key=names.WORKER_NAME).value.string_value = worker
    text = resource.SerializeToString()
    return text


def _groups(request: bytes) -> Iterator[bytes]:
    """Yield the groups one by one. Raises NotOtlp, IndexError where the bytes end too early, ValueError."""
    at = 0
    while at < len(request):
        tag, at = varint(request, at)
        length, start = varint(request, at)
        at = start + length
        if tag != _GROUP or at > len(request):
            raise NotOtlp(reason=f"field with tag {tag} and length {length}")
        yield request[start:at]
