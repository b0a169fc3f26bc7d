"""How long work is waited for that gets on, or does not."""

from __future__ import annotations

import asyncio

import pytest
from edge_worker.patience import while_it_moves

WITHIN = 0.05


@pytest.mark.parametrize(("moves", "done"), [(True, True), (False, False)])
def test_work_is_cancelled_only_when_it_gets_no_further(moves: bool, done: bool) -> None:
    left, cancelled = 4, False

    async def work() -> None:
        nonlocal left, cancelled
        try:
            while left:
                await asyncio.sleep(WITHIN / 2)
                left -= moves
        except asyncio.CancelledError:
            cancelled = True
            raise

    assert asyncio.run(while_it_moves(work(), lambda: left, WITHIN)) is done
    assert cancelled is not done


def test_defect_in_the_work_is_raised() -> None:
    async def work() -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        asyncio.run(while_it_moves(work(), lambda: 1, WITHIN))
