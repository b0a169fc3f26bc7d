"""``airflow edge api``: serves the Edge API without the rest of Airflow's API server."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import uvicorn
from airflow.configuration import conf

from edge_otel.cli.command import edge_command, fail
from edge_otel.messages import MAX_MESSAGE
from edge_otel.models.database import check_migrated
from edge_otel.models.session import new_session
from edge_otel.settings import LogFolder, Settings
from edge_otel.telemetry.counters import SHARED_FOLDER

log = logging.getLogger(__name__)

PING = 20.0
"""Seconds after which a dead worker's channel is noticed."""
KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than most proxies do, so that it is they who close it."""
GRACE = 10
"""Seconds that requests have to end when the server stops."""
HANGS_AFTER = 60
"""Seconds without a sign of life until a process of several is replaced."""


@edge_command
def serve(args: Namespace) -> None:
    """Serve until told to stop."""
    if args.workers < 1:
        fail(f"--workers {args.workers}: at least 1")
    _check_certificate(args.ssl_cert, args.ssl_key)
    settings = Settings.read(conf)
    LogFolder.read(conf)
    with new_session() as session:
        check_migrated(session)
    _check_address(args.host, args.port)
    if not settings.execution_api_url:
        log.warning(
            "[edge] execution_api_url is not set, so workers derive it from the URL under which they reach this server,"
            " which does not serve Airflow's Execution API. Set it to that of Airflow's API server, for example"
            " https://airflow.example.com/execution/, unless a proxy serves both under one host name."
        )
    with _counting_together(args.workers):
        uvicorn.run(
            "edge_otel.api.standalone:create_standalone_app",
            factory=True,
            host=args.host,
            port=args.port,
            workers=args.workers,
            ssl_certfile=args.ssl_cert,
            ssl_keyfile=args.ssl_key,
            lifespan="on",
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,
            ws_ping_interval=PING,
            ws_ping_timeout=PING,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
            timeout_worker_healthcheck=HANGS_AFTER,
            access_log=False,
            # Airflow has set up logging.
            log_config=None,
        )


@contextmanager
def _counting_together(processes: int) -> Iterator[None]:
    """Let several processes tell Prometheus the same, whichever is asked: otherwise each scrape of another one would
    look like a restart."""
    if processes == 1 or os.environ.get(SHARED_FOLDER):
        yield
        return
    with TemporaryDirectory(prefix="edge-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        yield


def _check_certificate(certificate: str | None, key: str | None) -> None:
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        fail("--ssl-cert and --ssl-key: give both or none")
    try:
        # A password is not asked for: a server starts unattended.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        fail(f"--ssl-cert {certificate!r}, --ssl-key {key!r}: {error.strerror or error}")


def _check_address(host: str, port: int) -> None:
    """Fail with the reason if nobody can listen there."""
    if not 0 < port < 65536:
        fail(f"--port {port}: from 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # Connections of a server that has just ended do not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        fail(f"Cannot listen on {host} port {port}: {error.strerror or error}. Give another --host or --port.")
