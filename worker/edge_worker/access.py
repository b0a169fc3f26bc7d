"""How to get to the central site: its proxy and the certificates to trust, the same by HTTP and by WebSocket."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from edge_worker.settings import Settings


def authorities(settings: Settings) -> str | None:
    """Return the file or folder of certificates to trust; None leaves it to requests."""
    if settings.ca_file:
        return str(settings.ca_file)
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or None


def proxy(settings: Settings) -> str | None:
    """Return the proxy's URL, by the rules of requests also where the environment names it."""
    found = settings.proxy or select_proxy(settings.server, get_environ_proxies(settings.server))
    return found if found is None or "://" in found else f"http://{found}"


def tls(settings: Settings) -> ssl.SSLContext:
    """Return the context for a connection, the files read anew; raises OSError. It blocks for some milliseconds."""
    trusted = authorities(settings) or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    folder = Path(trusted).is_dir()
    context = ssl.create_default_context(cafile=None if folder else trusted, capath=trusted if folder else None)
    if settings.client_cert and settings.client_key:
        context.load_cert_chain(settings.client_cert, settings.client_key)
    return context
