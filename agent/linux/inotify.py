"""inotify(7): notice that a kernel file such as memory.events or cgroup.events has changed."""

import os

from agent.linux.libc import call, path_bytes, s32, u32

IN_MODIFY = 2


class Watch:
    """A non-blocking inotify descriptor on some files. Use it as a context manager.

    `fd` becomes readable when one of the files changes.
    """

    def __init__(self, *paths: str) -> None:
        self.fd = call("inotify_init1", s32(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            for path in paths:
                call("inotify_add_watch", s32(self.fd), path_bytes(path), u32(IN_MODIFY), path=path)
        except BaseException:
            os.close(self.fd)
            raise

    def drain(self) -> None:
        """Discard the events so far, so that only a later change makes `fd` readable again."""
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            pass

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.fd)
