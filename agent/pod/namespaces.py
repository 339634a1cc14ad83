"""Namespaces that containers of a sandbox share: ipc and uts from the start, pid from the first container on."""

import errno
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent import loop
from agent.errors import WrongState
from agent.linux.libc import AT_FDCWD
from agent.linux.mount import MNT_DETACH, OPEN_TREE_CLONE, UMOUNT_NOFOLLOW, move_mount_path, open_tree, umount2
from agent.linux.process import CLONE_NEWIPC, CLONE_NEWUTS, unshare
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from agent.container.container import Container

PLACE = "/run/sandbox-ns"


class SharedNamespaces:
    """`paths` (kind -> path) are those that take the place of new ones in every container."""

    def __init__(self) -> None:
        self.paths: Mapping[str, str] = {}
        self._first: Container | None = None
        self._order = loop.Lock()

    def turn(self) -> "loop.Lock":
        """To be held while a container is made: as long as there is none, one after the other, since the first is special."""
        return self._order if self._first is None else loop.Lock()

    async def make(self, hostname: str, place: str = PLACE) -> None:
        """Make the ipc and uts namespaces in a child and keep them by mounts. Raises StepFailed."""
        os.makedirs(place, exist_ok=True)
        paths = {kind: f"{place}/{kind}" for kind in ("ipc", "uts")}
        self.unmake(place)
        for path in paths.values():
            with open(path, "w"):
                pass

        def work() -> None:
            unshare(CLONE_NEWIPC | CLONE_NEWUTS)
            if hostname:
                socket.sethostname(hostname)
            for kind, path in paths.items():
                mount = open_tree(AT_FDCWD, f"/proc/self/ns/{kind}", OPEN_TREE_CLONE)
                move_mount_path(mount, path)
                os.close(mount)

        await run_in_worker(work, "sandbox namespaces")
        self.paths = paths

    def unmake(self, place: str = PLACE) -> None:
        """Give the ipc and uts namespaces back; those that are not there are no error."""
        self.paths = {}
        for kind in ("ipc", "uts"):
            try:
                umount2(f"{place}/{kind}", MNT_DETACH | UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT):
                    raise

    def pid(self) -> str | None:
        """The path of the sandbox's pid namespace, that of its first container; None while there is none: the next one makes it.

        Raises WrongState when the first container has ended: its namespace has ended with it (pid_namespaces(7)).
        """
        if self._first is None:
            return None
        if self._first.init.exit_status is not None:
            raise WrongState(f"the sandbox's pid namespace has ended with its first container, {self._first.id!r}")
        return f"/proc/{self._first.init.pid}/ns/pid"

    def created(self, container: "Container") -> None:
        """A container is there: the first one's pid namespace is the sandbox's."""
        if self._first is None:
            self._first = container

    def removed(self, container: "Container") -> None:
        """A container is gone. Without the first one, the next to come is the first."""
        if self._first is container:
            self._first = None
