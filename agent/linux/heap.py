"""Overwrite the memory that this process has freed and that its allocators keep.

A freed block keeps its content until it is handed out again. Two allocators have such blocks: the
interpreter's (pymalloc), with a pool of blocks for each size up to 512 bytes, and the C library's.
Neither can be asked to clear them, so everything that is free is allocated, cleared and freed
again.
"""

import ctypes
import gc
import os

from agent.linux.libc import trim_heap

ALIGNMENT = 16
"""Bytes between two sizes of blocks, in both allocators."""
SMALL = 512
"""The largest block of pymalloc. What is larger comes from the C library."""
BYTES_HEADER = 33
"""Bytes of a block that a bytes object takes beside its content."""
PARTLY_USED = 1 << 20
"""More bytes than are free in those pools of one size that are in use."""
CACHED = 8
"""One more than the blocks of each size that the C library caches for a thread (tcache_count)."""
CACHED_MAX = 1040
"""Its largest such block."""
AT_ONCE = 256
SIZES = (32 << 10, 4 << 10, 1 << 10, 512, 128, 24)
"""Sizes that are taken from the C library, one after the other, until none is free."""


class _MallocInfo(ctypes.Structure):
    """`struct mallinfo2` (mallinfo(3))."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    ]


_libc = ctypes.PyDLL(None)
_malloc, _free, _usable = _libc.malloc, _libc.free, _libc.malloc_usable_size
_malloc.restype = ctypes.c_void_p
_malloc.argtypes = [ctypes.c_size_t]
_free.argtypes = _usable.argtypes = [ctypes.c_void_p]
_free.restype = None
_usable.restype = ctypes.c_size_t


def wipe_free_blocks() -> None:
    """Overwrite every block that was freed, and give what is free to the kernel."""
    gc.collect()
    _wipe_pools()
    _wipe_heap()
    trim_heap()


def _wipe_pools() -> None:
    """Overwrite what is free in pymalloc.

    Free pools belong to no size, so the largest takes them all, and keeps them meanwhile. Then each
    size has only the blocks of its own pools.
    """
    pools = [bytes(SMALL - BYTES_HEADER) for _ in range(_resident() // SMALL)]
    for size in range(ALIGNMENT, SMALL + 1, ALIGNMENT):
        if size > BYTES_HEADER:
            blocks: list[object] = [bytes(size - BYTES_HEADER) for _ in range(PARTLY_USED // size)]
        else:
            blocks = [bytearray(size - 1) for _ in range(PARTLY_USED // (size + 64))]
        del blocks
    del pools


def _wipe_heap() -> None:
    """Overwrite what is free in the C library's heap.

    It prefers the smallest free block that fits. So a size is exhausted when its blocks come from
    the end of the heap, which was never used.
    """
    taken = [_zeroed(size) for size in range(24, CACHED_MAX, ALIGNMENT) for _ in range(CACHED)]
    for size in SIZES:
        left = _free_bytes()
        while left:
            taken += [_zeroed(size) for _ in range(AT_ONCE)]
            before, left = left, _free_bytes()
            if left >= before:
                break
    for address in taken:
        _free(address)


def _zeroed(size: int) -> int:
    address: int = _malloc(size)
    ctypes.memset(address, 0, _usable(address))
    return address


def _free_bytes() -> int:
    """Return how many bytes are free in the C library's heap, without those at its end."""
    call = _libc.mallinfo2
    call.restype = _MallocInfo
    info = call()
    return int(info.fordblks - info.keepcost)


def _resident() -> int:
    """Return the bytes of memory that this process has of its own (proc_pid_status(5), RssAnon)."""
    fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 1 << 16).decode().splitlines()
    finally:
        os.close(fd)
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))
