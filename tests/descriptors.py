"""What a test compares to show that no descriptor is left open."""

import gc
import os


def open_descriptors() -> frozenset[str]:
    """Return this process' open descriptors, each with what it is open for.

    Objects that only wait for the garbage collector are collected first: they may be an earlier test's, and would be closed
    between two calls.
    """
    gc.collect()
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:  # that of listdir
            continue
    return frozenset(found)
