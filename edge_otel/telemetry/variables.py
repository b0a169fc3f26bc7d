"""The standard environment variables of OpenTelemetry, as far as they are read by hand. Pure.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote


def disabled(environment: Mapping[str, str]) -> bool:
    """Return whether ``OTEL_SDK_DISABLED`` turns telemetry off."""
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def headers(text: str) -> dict[str, str]:
    """Return the headers in ``a=b,c=d``, values URL-encoded. What is malformed is left out, and not logged: it may be
    a secret."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs if name.strip()}
