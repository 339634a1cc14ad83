"""Mount namespaces of this process beside its own: a thread enters one for the time of a call.

A namespace belongs to a thread (setns(2)). One that nobody is in lives as long as a descriptor of
it is open, so it never outlives this process and what it has started there.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from innkeeper.libc import check, libc
from innkeeper.shim.mounts import MS_REC, MS_SLAVE, mount

CLONE_FS, CLONE_NEWNS = 0x200, 0x20000
THREADS_OWN = "/proc/thread-self/ns/mnt"

Result = TypeVar("Result")


class MountNamespace:
    """A copy of this process's mount namespace. `close` must be called."""

    def __init__(self) -> None:
        """Make it.

        What is unmounted in the host's namespace is unmounted here, if its mounts are shared.
        Raises OSError.
        """
        self._descriptor = in_copy(lambda: os.open(THREADS_OWN, os.O_RDONLY | os.O_CLOEXEC))

    @property
    def path(self) -> str:
        """The path by which a process that this one starts can enter it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def call(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns inside. Raises what it raises, and OSError."""

        def inside() -> Result:
            check(libc.unshare(CLONE_FS), "unshare")  # setns(2) needs a working directory of the thread's own
            check(libc.setns(self._descriptor, CLONE_NEWNS), "setns")
            return work()

        return _in_thread(inside)

    def close(self) -> None:
        """Let go of it. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def in_copy(work: Callable[[], Result]) -> Result:
    """Return what `work` returns in a new copy of this process's mount namespace.

    Its mounts appear nowhere else. Raises what it raises, and OSError.
    """

    def inside() -> Result:
        check(libc.unshare(CLONE_NEWNS), "unshare")
        mount("none", Path("/"), None, MS_REC | MS_SLAVE)
        return work()

    return _in_thread(inside)


def _in_thread(work: Callable[[], Result]) -> Result:
    """Return what `work` returns in a thread that ends with it."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            errors.append(error)

    thread = threading.Thread(target=run, name="mount namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
