"""Test bodies that change namespaces or mounts run in a child of their own."""

import ctypes
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from agent import loop

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC_PRIVATE = 0x4000 | 0x40000


def forked(body: Callable[[], object], *, unshare: int = 0) -> None:
    """Run `body` in a forked child that has its own namespaces of the kinds `unshare`; its failure becomes ours, with the traceback."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _child(body, unshare, write_end)
    os.close(write_end)
    with os.fdopen(read_end, errors="replace") as report:
        text = report.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"in the forked child (status {status}):\n{text}"


def forked_loop(body: Callable[[], Coroutine[Any, Any, object]], *, unshare: int = 0) -> None:
    """`forked` for a coroutine function, run by the agent's loop."""
    forked(lambda: loop.run(body()), unshare=unshare)


def _child(body: Callable[[], object], unshare: int, write_end: int) -> NoReturn:
    status = 1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if unshare and libc.unshare(unshare):
            raise OSError(ctypes.get_errno(), "unshare")
        if unshare & CLONE_NEWNS and libc.mount(None, b"/", None, MS_REC_PRIVATE, None):
            raise OSError(ctypes.get_errno(), "mount --make-rprivate /")
        body()
        status = 0
    except BaseException:  # noqa: BLE001 - the edge of a process: the parent fails with this text
        os.write(write_end, traceback.format_exc().encode(errors="replace")[-60000:])
    finally:
        sys.stdout.flush()
        os._exit(status)
