"""Wipe memory that is not in use, before the guest is saved as a template.

What a process had, or a file that is gone, stays in memory until somebody else gets the page, and
each clone would have it. So the guest reports its free pages to the VM (free page reporting of
virtio-balloon), which makes holes of them in the file of the memory: the content is gone, and the
file is smaller. Pages that were never used cost nothing then. To clear all free pages here would
take the host as much memory and disk as the guest has.

Not every page that is not in use is free. Each processor keeps some for itself, the kernel's caches
have free objects in pages that are in use, and so have the allocators of PID 1. All of these are
allocated, filled with zeros, and freed again.
"""

import _socket as socket  # as agent/linux/loopback.py
import contextlib
import fcntl
import os

from agent import log
from agent.errors import StepFailed
from agent.linux.heap import wipe_free_blocks
from agent.linux.keyring import add_key, new_session_keyring
from agent.loop import sleep
from agent.worker import run_in_worker

MIB = 1 << 20
KEPT_MIB = 16
"""More MiB of one kind than a processor keeps for itself. In a small guest it is less."""
MESSAGES = (128, 600, 1500, 3500, 100 << 10)
"""Sizes of messages, each of which the kernel stores in objects of another cache, or in pages."""
CACHES = "/sys/kernel/slab"
GENERAL = (64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
"""Sizes of objects in the kernel's caches for any purpose (kmalloc)."""
KEY_HEADER = 24
"""Bytes before the payload of a key (struct user_key_payload)."""
OBJECTS, OBJECTS_BYTES = 4096, 1 << 20
"""More objects of one size, or more bytes of them, than are free in pages that are in use."""
DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"
ORDER = "/sys/module/page_reporting/parameters/page_reporting_order"
"""The smallest free block that is reported: 2 to the power of this, in pages."""
COMPACT = "/proc/sys/vm/compact_memory"
BLOCKS = "/proc/buddyinfo"
DEVICE_SECONDS = 60.0
"""Seconds that the kernel may take to find the device."""
POLL_SECONDS = 0.1
PASS_SECONDS = 2.0
"""Seconds between two passes of the kernel over all free blocks.

mm/page_reporting.c, PAGE_REPORTING_DELAY.
"""
AT_ONCE = 32
"""Blocks that are reported together (PAGE_REPORTING_CAPACITY)."""
PASSES = 16
"""A pass reports about this part of a list of free blocks, but no fewer than AT_ONCE."""


async def wipe_guest() -> None:
    """Wipe what is not in use in the guest.

    Raises StepFailed if no device takes reports of free pages.
    """
    wipe_free_blocks()
    _shrink_caches()
    await run_in_worker(_fill_with_zeros, "wipe free memory")
    _shrink_caches()
    await _report_pages()


def _fill_with_zeros() -> None:
    """Write zeros to what is not in use and not free, in a process of its own."""
    for processor in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {processor})
        _fill_pages()
    _fill_objects()


def _fill_pages() -> None:
    """Take the pages that this processor keeps for itself, and free them again.

    It has separate lists of them: for memory of processes (here a file), for pipes and for sockets.
    """
    kept = min(KEPT_MIB, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB // 32)
    zeros = bytes(MIB)
    taken = [os.memfd_create("zeros")]
    try:
        for _ in range(kept):
            os.write(taken[0], zeros)
            taken += os.pipe()
            fcntl.fcntl(taken[-1], fcntl.F_SETPIPE_SZ, MIB)
            os.write(taken[-1], zeros)
        for size in MESSAGES * (kept // 2):
            taken += _full_sockets(zeros[:size])
    finally:
        for fd in taken:
            os.close(fd)


def _full_sockets(message: bytes) -> tuple[int, int]:
    """Return a pair of sockets, one of which has received as many of the messages as it takes."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(message)
    return near.detach(), far.detach()


def _fill_objects() -> None:
    """Take the free objects of the kernel's general caches: the payload of a key is such an object.

    The keys are gone with their keyring, and that with this process.
    """
    new_session_keyring()
    for size in GENERAL:
        payload = bytes(size - KEY_HEADER)
        for number in range(min(OBJECTS, OBJECTS_BYTES // size)):
            add_key(f"{size}.{number}", payload)


def _shrink_caches() -> None:
    """Free the pages of the kernel's caches that hold no object."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(CACHES):
            with contextlib.suppress(OSError):  # the cache is gone
                _write(f"{CACHES}/{name}/shrink", "1")


async def _report_pages() -> None:
    """Have all free pages reported."""
    await _device()
    _write(COMPACT, "1")  # fewer and larger blocks take fewer passes
    order = _read(ORDER)
    _write(ORDER, "0")
    try:
        passes = _passes(_read(BLOCKS))
        log.info("free pages are reported", passes=passes)
        # The first begins within PASS_SECONDS, and passes take a while themselves.
        await sleep(PASS_SECONDS * (passes + 2))
    finally:
        _write(ORDER, order)


async def _device() -> None:
    """Wait until the driver has the device."""
    for _ in range(round(DEVICE_SECONDS / POLL_SECONDS)):
        with contextlib.suppress(FileNotFoundError):
            if any(name.startswith("virtio") for name in os.listdir(DRIVER)):
                return
        await sleep(POLL_SECONDS)
    raise StepFailed("report free pages", "the kernel has not found the device")


def _passes(blocks: str) -> int:
    """Return the number of passes in which the kernel reports all of its free blocks.

    `blocks` is the content of /proc/buddyinfo (proc_buddyinfo(5)).
    """
    counts = [int(word) for line in blocks.splitlines() for word in line.partition("zone")[2].split()[1:]]
    each = [AT_ONCE * -(-count // (AT_ONCE * PASSES)) for count in counts]
    return max(-(-count // portion) for count, portion in zip(counts, each, strict=True) if count)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
