"""The rate of the host's time stamp counter, for guests under TCG.

A guest under TCG reads the host's counter, but a microvm has no device (port 0x61, PM timer, HPET)
to measure it against. Its kernel then discards the counter and keeps time by ticks of milliseconds.
If the kernel knows the rate (`tsc_early_khz=`), it uses the counter at once.
"""

import ctypes
import mmap
import os
import time
from collections.abc import Callable

from innkeeper.vm import bootfacts

MEASURE_SECONDS = 0.05
SAME_PPM = 100
"""Parts per million by which two measurements of one counter may differ.

A processor of another kind differs by far more, and the guest's clock is corrected anyway.
"""
_RDTSC = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3"  # rdtsc; shl $32, %rdx; or %rdx, %rax; ret
_PLAUSIBLE = range(100_000, 20_000_000)


def khz() -> int | None:
    """Return counts per millisecond, or None if they cannot be measured.

    That is the case on anything but x86-64, or if executable memory is forbidden. The rate is part
    of the guest's command line, and so of the key of each template and snapshot. So after a reboot
    of the host the earlier value stays, unless the counter has another rate now.
    """
    if os.uname().machine != "x86_64":
        return None
    known = bootfacts.recall("tsc")
    if isinstance(known, int) and known in _PLAUSIBLE:
        return known
    measured = measure()
    if measured is None:
        return None
    earlier = bootfacts.recall_older("tsc")
    if isinstance(earlier, int) and abs(measured - earlier) * 1_000_000 <= SAME_PPM * earlier:
        measured = earlier
    bootfacts.remember("tsc", measured)
    return measured


def measure() -> int | None:
    """Measure counts per millisecond against the monotonic clock over MEASURE_SECONDS.

    Return None without executable memory, or if the result is implausible.
    """
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(_RDTSC)
    view = ctypes.c_char.from_buffer(page)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(view))
    first = _sample(read)
    time.sleep(MEASURE_SECONDS)
    second = _sample(read)
    del view
    page.close()
    rate = round((second[0] - first[0]) * 1_000_000 / (second[1] - first[1]))
    return rate if rate in _PLAUSIBLE else None


def _sample(read: Callable[[], int]) -> tuple[int, int]:
    """Return (counter, nanoseconds), read as close together as the best of 50 attempts.

    The thread may be preempted between the readings. The attempt with the shortest interval around
    the counter suffered least from that.
    """
    best: tuple[int, int, int] | None = None
    for _ in range(50):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        count = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if best is None or after - before < best[2]:
            best = (count, (before + after) // 2, after - before)
    assert best is not None
    return best[0], best[1]
