"""Keeps a guest's clock right: a host that slept, or a machine that was stopped, is told by nothing in the guest.

Under KVM as under emulation the guest's clock goes on from where it was when its processors stood still. So the process that owns the
machine looks now and then, and sets the clock when it is off; small differences are left alone, for a clock that is set often goes back.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from innkeeper.client import Agent, RpcError
from innkeeper.wire import status

INTERVAL = 2.0
"""Seconds between two looks."""
TOLERANCE_NS = 500_000_000
"""Nanoseconds that the guest may differ by."""
HOPELESS = (status.UNIMPLEMENTED, status.PERMISSION_DENIED)
"""Answers that stay what they are: an older guest, or a policy."""


@contextmanager
def kept_right(agent: Agent) -> Iterator[None]:
    """Compare the clocks, and set the guest's when it is off, for as long as the `with` lasts or the guest does."""
    ended = threading.Event()
    threading.Thread(target=_keep, args=(agent, ended), name="clock", daemon=True).start()
    try:
        yield
    finally:
        ended.set()  # a look that is on its way ends with the connection


def _keep(agent: Agent, ended: threading.Event) -> None:
    while not ended.wait(INTERVAL):
        try:
            correct(agent)
        except RpcError as error:
            if error.lost or error.code in HOPELESS:
                return


def correct(agent: Agent) -> bool:
    """Set the guest's clock if it is off by more than TOLERANCE_NS. Return whether it was. Raises RpcError.

    The answer was made at some time between question and answer: a guest that was stopped in between is seen the next time.
    """
    asked = time.time_ns()
    there = agent.get_clock()
    if asked - TOLERANCE_NS <= there <= time.time_ns() + TOLERANCE_NS:
        return False
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    agent.set_guest_date_time(seconds, rest // 1000)
    return True
