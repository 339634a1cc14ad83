"""Keeps the guest's clock right by the host's, where KVM shows it as a PTP device (CONFIG_PTP_1588_CLOCK_KVM).

A machine that was stopped, or whose host slept, goes on with the time at which it stood still, and under Kata's shim nobody tells it
better: Kata's own guest has chronyd for this. Here the two clocks are compared now and then; a small difference is left alone, since a
clock that is set often goes back.
"""

import os
import time

from agent import log, loop

CLASS = "/sys/class/ptp"
NAME = "KVM virtual PTP"
"""clock_name of the host's clock; other PTP devices are network cards', which tell another time."""
INTERVAL = 5.0
"""Seconds between two looks."""
TOLERANCE_NS = 500_000_000
"""Nanoseconds that the guest's clock may be off."""


def find(sysfs: str = CLASS) -> str | None:
    """Return the device of the host's clock, or None where there is none: without KVM."""
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
    """Begin to look, if there is a clock to look at. Not having one is no error."""
    try:
        device = find()
        if device is not None:
            loop.spawn(_keep(os.open(device, os.O_RDONLY | os.O_CLOEXEC)), name="clock")
    except OSError as error:
        log.warn(f"the host's clock cannot be read: {error}", "clock")


async def _keep(fd: int) -> None:
    try:
        while True:
            correct(clock_of(fd))
            await loop.sleep(INTERVAL)
    except OSError as error:
        log.warn(f"the clock is not kept any more: {error}", "clock")
    finally:
        os.close(fd)


def clock_of(fd: int) -> int:
    """Return the clockid_t of a clock's device (FD_TO_CLOCKID of clock_gettime(2))."""
    return (~fd << 3) | 3


def correct(clock: int) -> bool:
    """Set CLOCK_REALTIME to `clock` if they differ by more than TOLERANCE_NS. Return whether they did. Raises OSError."""
    there = time.clock_gettime_ns(clock)
    off = there - time.time_ns()
    if abs(off) <= TOLERANCE_NS:
        return False
    time.clock_settime_ns(time.CLOCK_REALTIME, there)
    log.info(f"the clock was off by {off / 1e9:.3f} s", "clock")
    return True
