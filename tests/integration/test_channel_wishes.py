"""What administrators and the executor ask for, in a process of their own, reaches a worker over its channel: at once
where the database tells of it, and otherwise when the server looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from channels import Far
from replicas import Replica, Replicas
from rows import queue_job
from websockets.exceptions import ConnectionClosed

from edge_otel.api.pulse import LOOK_INTERVAL
from edge_otel.models import tokens, upkeep, wishes
from edge_otel.models.session import Session
from edge_otel.state import WorkerState

pytestmark = pytest.mark.parametrize(
    ("database_url", "within"),
    [("postgresql", 2.0), ("sqlite", LOOK_INTERVAL + 2.0)],
    indirect=["database_url"],
    ids=["postgresql", "sqlite"],
    scope="module",
)


@pytest.fixture(scope="module")
def server(launcher: Replicas, database_url: str) -> Iterator[Replica]:
    """A server that has heard nothing of this process."""
    server = launcher.start(database_url)
    yield server
    server.kill()


@pytest.fixture
def far(server: Replica, token: str) -> Iterator[Far]:
    """Worker ``w``, idle."""
    far = Far(server.url, token)
    assert far.hello().type == "welcome"
    far.beat()
    yield far
    far.close()


def hear(far: Far, within: float, wanted: Callable[[Any], Any]) -> Any:
    """Return the first such message, which must come in this time."""
    until = time.monotonic() + within
    while (left := until - time.monotonic()) > 0:
        message = far.hear(timeout=left)
        if wanted(message):
            return message
    raise TimeoutError


ASKED: dict[str, tuple[Callable[[Session], Any], Callable[[Any], bool]]] = {
    "maintenance": (
        lambda session: wishes.request_maintenance(session, "w", "why", datetime.now(UTC), by="admin"),
        lambda told: (told.state, told.maintenance_comments) == (WorkerState.MAINTENANCE_REQUEST, "why"),
    ),
    "shutdown": (
        lambda session: wishes.request_shutdown(session, "w", datetime.now(UTC), by="admin"),
        lambda told: told.state is WorkerState.SHUTDOWN_REQUEST,
    ),
    "queues": (
        lambda session: wishes.change_queues(session, "w", ["gpu", "big"], [], datetime.now(UTC), by="ann"),
        lambda told: told.queues == ["gpu", "big"],
    ),
    "concurrency": (
        lambda session: wishes.set_concurrency(session, "w", 7, datetime.now(UTC), by="ann"),
        lambda told: told.concurrency == 7,
    ),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_worker_is_told_what_an_administrator_asks_for(far, database, within, what):
    ask, told = ASKED[what]
    with database() as session:
        ask(session)
    hear(far, within, lambda message: message.type == "settings" and told(message))


def test_a_worker_whose_token_is_revoked_is_closed(far, token, database, within):
    with database() as session:
        tokens.revoke(session, token[4:20], datetime.now(UTC))
    hear(far, within, lambda message: message.type == "error" and message.error == "Forbidden")
    with pytest.raises(ConnectionClosed) as closed:
        far.hear()
    assert closed.value.rcvd.code == 4403


@pytest.mark.parametrize("again", [False, True], ids=["for good", "and queued again"])
def test_a_worker_is_told_to_stop_what_was_withdrawn(far, database, within, again):
    with database() as session:
        job_id = queue_job(session, datetime.now(UTC))
    offer = far.hear("job")
    assert far.accept(offer).type == "confirmed"
    far.beat("running", jobs=[{"id": job_id, "claim": offer.claim, "slots": 1}])
    with database() as session:
        upkeep.withdraw(session, job_id, datetime.now(UTC))
        if again:
            queue_job(session, datetime.now(UTC), id=job_id, queue="another")
    hear(far, within, lambda message: message.type == "cancel" and str(message.id) == job_id)


def test_a_worker_that_comes_back_at_another_server_leaves_no_channel_behind(
    launcher, server, far, token, database_url, within
):
    elsewhere = launcher.start(database_url)
    try:
        again = Far(elsewhere.url, token, session=far.session)
        assert again.hello(state="idle").type == "welcome"
        hear(far, within, lambda message: message.type == "bye")
        replacement = Far(server.url, token)
        assert replacement.hello().type == "welcome"
        hear(again, within, lambda message: message.type == "error" and message.error == "SessionReplaced")
        replacement.close()
        again.close()
        far.close()
    finally:
        elsewhere.kill()
