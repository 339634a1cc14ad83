"""What a test compares to show that no descriptor is left open."""

import gc
import os


def open_descriptors() -> frozenset[str]:
    """Return this process' open descriptors, each with what it is open for.

    A test asserts that there are none afterwards that were not there before (`<=`). Fewer may be: a thread of an earlier test
    ends meanwhile. Objects that only wait for the garbage collector are collected first.
    """
    gc.collect()
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:  # that of listdir
            continue
    return frozenset(found)
