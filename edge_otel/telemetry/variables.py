"""The standard environment variables of OpenTelemetry, as far as they are read by hand. Pure.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


def disabled(environment: Mapping[str, str]) -> bool:
    """Return whether ``OTEL_SDK_DISABLED`` turns telemetry off."""
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def headers(text: str) -> dict[str, str]:
    """Return the headers in ``a=b,c=d``, values URL-encoded, without the white space around them. What is malformed
    is left out, and not logged: it may be a secret."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip().lower(): unquote(value).strip() for name, _, value in pairs if name.strip()}


def can_be_sent(headers: Mapping[str, str]) -> bool:
    """Return whether HTTP can carry these headers. What cannot be sent must not be tried: the failure would repeat it
    in the log."""
    return all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in headers.items())
