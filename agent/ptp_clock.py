"""Keeps the clock of the guest in step with the host's.

KVM offers the host's clock as a PTP device (CONFIG_PTP_1588_CLOCK_KVM). A VM that was paused, or
whose host was suspended, continues with the time at which it stopped, and Kata's shim does not
correct that: Kata's own guest runs chronyd for it. Here the two clocks are compared every INTERVAL
seconds. A small difference is ignored, because a clock that is set often jumps backwards.
"""

import os
import time

from agent import log, loop
from agent.linux.fd import OwnedFd

CLASS = "/sys/class/ptp"
NAME = "KVM virtual PTP"
"""clock_name of the host's clock. Other PTP devices are network cards, which have another time."""
INTERVAL = 5.0
"""Seconds between two comparisons."""
TOLERANCE_NS = 500_000_000
"""Nanoseconds by which the guest's clock may differ."""


def find(sysfs: str = CLASS) -> str | None:
    """Return the device of the host's clock, or None if there is none, as without KVM.

    Raises OSError.
    """
    try:
        names = sorted(os.listdir(sysfs))
    except FileNotFoundError:
        return None
    for name in names:
        with open(f"{sysfs}/{name}/clock_name", encoding="ascii", errors="replace") as file:
            if file.read().strip() == NAME:
                return f"/dev/{name}"
    return None


def start() -> None:
    """Start to keep the clock, if the VM has a device for it.

    A missing device is no error. A device that cannot be opened is logged.
    """
    try:
        device = find()
        if device is not None:
            loop.spawn(_keep(os.open(device, os.O_RDONLY | os.O_CLOEXEC)), name="clock")
    except OSError as error:
        log.warn(f"the host's clock cannot be read: {error}", "clock")


async def _keep(fd: int) -> None:
    """Correct the clock for ever. After an error, which is logged, the clock is left alone."""
    with OwnedFd(fd):
        try:
            while True:
                correct(clock_of(fd))
                await loop.sleep(INTERVAL)
        except OSError as error:
            log.warn(f"the clock is not kept any more: {error}", "clock")


def clock_of(fd: int) -> int:
    """Return the clockid_t for a clock's device (FD_TO_CLOCKID of clock_gettime(2))."""
    return (~fd << 3) | 3


def correct(clock: int) -> bool:
    """Set CLOCK_REALTIME to `clock` if they differ by more than TOLERANCE_NS.

    Returns True if the clock was set. Raises OSError.
    """
    there = time.clock_gettime_ns(clock)
    off = there - time.time_ns()
    if abs(off) <= TOLERANCE_NS:
        return False
    time.clock_settime_ns(time.CLOCK_REALTIME, there)
    log.info(f"the clock was off by {off / 1e9:.3f} s", "clock")
    return True
