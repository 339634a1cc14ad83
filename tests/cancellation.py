"""Cancellation that is injected at one await of a coroutine, as a client's deadline may come at any of them."""

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from agent import loop

AWAITS = 150
"""More than anything has that a test cancels."""


@types.coroutine
def cancelled_at(number: int, work: Coroutine[Any, Any, Any]) -> Generator[None, None, bool]:
    """Run `work` and throw Cancelled into it at its await `number`, counted from 1; whether there was one."""
    error: BaseException | None = None
    parks = 0
    while True:
        try:
            if error is None:
                work.send(None)
            else:
                work.throw(error)
        except StopIteration:
            return False
        except loop.Cancelled:
            return True
        parks += 1
        error = loop.Cancelled() if parks == number else None
        if error is None:
            try:
                yield
            except BaseException as thrown:  # noqa: BLE001 - it is for `work`, whatever it is
                error = thrown


async def at_each_await(once: Callable[[int], Coroutine[Any, Any, bool]]) -> None:
    """`once` with 1, 2, ... until it says that there was no such await."""
    for number in range(1, AWAITS):
        if not await once(number):
            return
    raise AssertionError(f"more than {AWAITS} awaits")
