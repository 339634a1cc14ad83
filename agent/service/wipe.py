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
import _thread
import contextlib
import fcntl
import os
import time
from functools import partial

from agent import log
from agent.errors import StepFailed
from agent.linux.keyring import add_key, new_session_keyring
from agent.worker import run_in_worker

MIB = 1 << 20
KEPT_MIB = 16
"""More MiB of one kind than a processor keeps for itself. In a small guest it is less."""
HELD_PART = 16
"""No more than this part of the guest's memory is taken in files, and as much in pipes."""
MESSAGES = (128, 600, 1500, 3500, 100 << 10)
"""Sizes of messages, each of which the kernel stores in objects of another cache, or in pages."""
CACHES = "/sys/kernel/slab"
GENERAL = (32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
"""Sizes of objects in the kernel's caches for any purpose (kmalloc)."""
KEY_HEADER = 24
"""Bytes before the payload of a key (struct user_key_payload)."""
OBJECTS, OBJECTS_BYTES = 4096, 1 << 20
"""More objects of one size, or more bytes of them, than are free in pages that are in use."""
TASKS = 128
"""More free objects of tasks than there are in pages that are in use."""
OF_A_PROCESSOR = (16, 256)
"""More tasks, and more objects of one size, than are free in what one processor has taken."""
DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"
ORDER = "/sys/module/page_reporting/parameters/page_reporting_order"
"""The smallest free block that is reported: 2 to the power of this, in pages."""
LISTS = "/proc/pagetypeinfo"
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


async def wipe_guest(used_blocks: int) -> None:
    """Wipe what is not in use in the guest.

    `used_blocks` is the number of 4 MiB blocks, the largest that the kernel keeps free, in which
    the host has given the guest memory. The free blocks of PID 1 itself are wiped before and
    afterwards (agent/linux/heap.py). Raises StepFailed, if no device takes reports of free pages,
    too.
    """
    await run_in_worker(_fill_objects, "wipe free objects")
    await run_in_worker(partial(_wipe_memory, used_blocks), "wipe free memory")


def _wipe_memory(used_blocks: int) -> None:
    """Fill with zeros the pages that are not in use and not free, and have free ones reported.

    What is filled comes from the smallest free blocks. Held until the end, it leaves few and large
    blocks to report.
    """
    _shrink_caches()
    taken: list[int] = []
    try:
        processors = os.sched_getaffinity(0)
        kept = _kept_mib(len(processors))
        for processor in processors:
            os.sched_setaffinity(0, {processor})
            _fill_pages(kept, taken)
        _report_pages(used_blocks)
    finally:
        for fd in taken:
            os.close(fd)


def _kept_mib(processors: int) -> int:
    """Return how many MiB of each kind to fill for each of so many processors."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    return max(1, min(KEPT_MIB, memory // HELD_PART // processors))


def _fill_pages(kept: int, taken: list[int]) -> None:
    """Fill the pages that this processor keeps for itself, `kept` MiB of each kind.

    It has separate lists of them: for memory of processes (here a file), for pipes and for sockets.
    What the file and the pipes take is kept by descriptors that are added to `taken`.
    """
    zeros = bytes(MIB)
    sockets = [fd for size in MESSAGES * -(-kept // 2) for fd in _full_sockets(zeros[:size])]
    for fd in sockets:  # their pages are not only zeros
        os.close(fd)
    taken.append(file := os.memfd_create("zeros"))
    for _ in range(kept):
        os.write(file, zeros)
        taken += os.pipe()
        fcntl.fcntl(taken[-1], fcntl.F_SETPIPE_SZ, MIB)
        os.write(taken[-1], zeros)


def _full_sockets(message: bytes) -> tuple[int, int]:
    """Return a pair of sockets, one of which has received as many of the messages as it takes."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(message)
    return near.detach(), far.detach()


def _fill_objects() -> None:
    """Take the free objects of some of the kernel's caches.

    First all processors give up the pages that they take objects from. Then only those can be
    missed that another processor has taken for itself since, which are few. The payload of a key is
    an object of a general cache. The keys are gone with their keyring, and that with this process.
    """
    _shrink_caches()
    new_session_keyring()
    tasks, objects = TASKS, OBJECTS
    for processor in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {processor})
        _fill_tasks(tasks)
        for size in GENERAL:
            payload = bytes(size - KEY_HEADER)
            for number in range(min(objects, OBJECTS_BYTES // size)):
                add_key(f"{processor}.{size}.{number}", payload)
        tasks, objects = OF_A_PROCESSOR


def _fill_tasks(number: int) -> None:
    """Take the free objects of the kernel's tasks, with threads that end with this process.

    An ended process leaves its registers in one, and they hold what it has copied last.
    """
    never = _thread.allocate_lock()
    never.acquire()
    for _ in range(number):
        _thread.start_new_thread(never.acquire, ())


def _shrink_caches() -> None:
    """Free the pages of the kernel's caches that hold no object, also those of a processor.

    See Documentation/ABI/testing/sysfs-kernel-slab.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(CACHES):
            with contextlib.suppress(OSError):  # the cache is gone
                _write(f"{CACHES}/{name}/shrink", "1")


def _report_pages(used_blocks: int) -> None:
    """Have all free pages reported that were ever used."""
    _wait_for_device()
    order = _read(ORDER)
    _write(ORDER, "0")
    try:
        passes = _passes(_read(LISTS), used_blocks)
        log.info("free pages are reported", passes=passes)
        # The first begins within PASS_SECONDS, and passes take a while themselves.
        time.sleep(PASS_SECONDS * (passes + 2))
    finally:
        _write(ORDER, order)


def _wait_for_device() -> None:
    """Wait until the driver has the device."""
    for _ in range(round(DEVICE_SECONDS / POLL_SECONDS)):
        with contextlib.suppress(FileNotFoundError):
            if any(name.startswith("virtio") for name in os.listdir(DRIVER)):
                return
        time.sleep(POLL_SECONDS)
    raise StepFailed("report free pages", "the kernel has not found the device")


def _passes(lists: str, used_blocks: int) -> int:
    """Return the number of passes in which the kernel reports all free pages that were ever used.

    `lists` is the content of /proc/pagetypeinfo (proc_pagetypeinfo(5)). A block of the two largest
    sizes is added at the head of its list when it is freed (mm/page_alloc.c, buddy_merge_likely),
    and passes begin there. So those that were never used come last, and need not be waited for.
    """
    result = 1
    for line in lists.splitlines():
        if (counts := line.partition(", type")[2].split()[1:]) and all(count.isdigit() for count in counts):
            for size, count in enumerate(map(int, counts)):
                portion = AT_ONCE * -(-count // (AT_ONCE * PASSES))
                used = min(count, used_blocks) if size >= len(counts) - 2 else count
                result = max(result, -(-used // portion) if used else 0)
    return result


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
