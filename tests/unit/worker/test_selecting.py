"""Events that somebody else has handled meanwhile are not handled again."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from edge_worker.selecting import keep_fresh


@pytest.fixture
def ready() -> Iterator[tuple[selectors.BaseSelector, list[socket.socket]]]:
    """A selector, and three sockets with a byte each."""
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        ours = []
        for _ in range(3):
            one, other = socket.socketpair()
            ours.append(stack.enter_context(one))
            stack.enter_context(other).send(b"x")
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ)
        keep_fresh(selector)
        yield selector, ours


def test_all_events_come_when_nobody_asks_meanwhile(ready):
    selector, ours = ready
    assert {key.fileobj for key, _ in selector.select(0)} == set(ours)


def test_no_event_comes_after_somebody_has_asked_meanwhile(ready):
    selector, _ = ready
    handled = []
    for key, _ in selector.select(0):
        handled.append(key.fileobj)
        # Raises BlockingIOError where there is nothing any more.
        key.fileobj.recv(1)
        for inner, _ in selector.select(0):
            handled.append(inner.fileobj)
            inner.fileobj.recv(1)
    assert len(handled) == len(set(handled)) == 3


def test_what_was_not_handled_comes_again(ready):
    selector, _ = ready
    for key, _ in selector.select(0):
        key.fileobj.recv(1)
        list(selector.select(0))
    assert len(list(selector.select(0))) == 2
