"""Keep a guest's clock right while the host sleeps or the VM is stopped.

Nothing in the guest reports such a pause. Under KVM and under TCG alike, the guest's clock
continues from where it was when its processors stopped. So the process that owns the VM compares
the clocks every INTERVAL seconds and sets the guest's when it is off. Differences up to
TOLERANCE_NS are left alone, because a clock that is set often also jumps backwards. After a restore
the clock is set at once, by `clones.identify`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from innkeeper.client import Agent, RpcError
from innkeeper.wire import status

INTERVAL = 2.0
"""Seconds between two comparisons."""
TOLERANCE_NS = 500_000_000
"""Nanoseconds that the guest's clock may differ from the host's."""
PERMANENT = (status.UNIMPLEMENTED, status.PERMISSION_DENIED)
"""Status codes that will not change: the guest is older, or its policy forbids the call."""


@contextmanager
def synchronized(agent: Agent) -> Iterator[None]:
    """Context manager: compare the clocks and set the guest's when it is off.

    Stops at the end of the `with`, or earlier if the guest is gone.
    """
    ended = threading.Event()
    threading.Thread(target=_synchronize, args=(agent, ended), name="clock", daemon=True).start()
    try:
        yield
    finally:
        ended.set()  # a comparison in progress ends with the connection


def _synchronize(agent: Agent, ended: threading.Event) -> None:
    while not ended.wait(INTERVAL):
        try:
            correct(agent)
        except RpcError as error:
            if error.lost or error.code in PERMANENT:
                return


def correct(agent: Agent) -> bool:
    """Set the guest's clock if it is off by more than TOLERANCE_NS. Return True if it was.

    The guest reads its clock at an unknown moment between our request and its answer, so it is
    accepted if it lies between our two readings, give or take the tolerance. A guest that is
    stopped in between is caught by the next comparison. Raises RpcError.
    """
    before = time.time_ns()
    there = agent.get_clock()
    if before - TOLERANCE_NS <= there <= time.time_ns() + TOLERANCE_NS:
        return False
    set_now(agent)
    return True


def set_now(agent: Agent, ahead_ns: int = 0) -> None:
    """Set the guest's clock to the host's time in `ahead_ns` nanoseconds. Raises RpcError."""
    seconds, rest = divmod(time.time_ns() + ahead_ns, 1_000_000_000)
    agent.set_guest_date_time(seconds, rest // 1000)
