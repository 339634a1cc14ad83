"""inotify(7): which folders have changed. Python has no interface to it."""

import errno
import os
import select
import struct

from innkeeper.libc import check, libc

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
IN_ONLYDIR = 0x0100_0000
CHANGES = IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
OVERFLOW = -1
"""In place of a watch's number: events were lost."""
_EVENT = struct.Struct("iIII")
_BUFFER = 64 << 10


class Inotify:
    """An instance.

    The kernel may have none left for this user (EMFILE): then `wait` only waits. `close` must be
    called.
    """

    def __init__(self) -> None:
        """Make it. Raises OSError."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._descriptor = -1
        try:
            self._descriptor = check(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify")
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                os.close(self._wake)
                raise
        self.misses = self._descriptor < 0
        """Whether there are changes that inotify does not report."""

    def watch(self, folder: int) -> int:
        """Watch a folder, which is open, without what is below its folders.

        Return the number of the watch. Raises OSError. A folder has one number, however often it is
        watched. It is watched until it is removed.
        """
        if self._descriptor < 0:
            return OVERFLOW
        path = f"/proc/self/fd/{folder}".encode()
        try:
            return check(libc.inotify_add_watch(self._descriptor, path, CHANGES | IN_ONLYDIR), "inotify")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        self.misses = True  # the user has no watch left
        return OVERFLOW

    def wait(self, seconds: float | None) -> set[int]:
        """Wait for changes, or for `wake`.

        Return the numbers of the watches, which may be OVERFLOW.
        """
        ready = select.poll()
        for descriptor in (self._wake, self._descriptor):
            if descriptor >= 0:
                ready.register(descriptor, select.POLLIN)
        found = {descriptor for descriptor, _ in ready.poll(None if seconds is None else seconds * 1000)}
        return self._read() if self._descriptor in found else set()

    def _read(self) -> set[int]:
        try:
            data = os.read(self._descriptor, _BUFFER)
        except BlockingIOError:
            return set()
        numbers, position = set(), 0
        while position < len(data):
            number, _, _, length = _EVENT.unpack_from(data, position)
            numbers.add(number)
            position += _EVENT.size + length
        return numbers

    def wake(self) -> None:
        """End a `wait`, and all that follow."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Let go of it. Nobody may wait."""
        for descriptor in (self._wake, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
