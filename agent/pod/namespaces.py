"""Namespaces that the containers of a sandbox share.

The ipc and uts namespaces are created with the sandbox. The shared pid namespace is that of the
first container, because a pid namespace needs a process as its pid 1. A container can also join the
pid namespace of any other.
"""

import errno
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent import loop
from agent.container.namespaces import NewNamespaces
from agent.errors import StepFailed, WrongState
from agent.linux.fd import OwnedFd
from agent.linux.libc import AT_FDCWD
from agent.linux.mount import MNT_DETACH, OPEN_TREE_CLONE, UMOUNT_NOFOLLOW, move_mount_path, open_tree, umount2
from agent.linux.process import CLONE_NEWIPC, CLONE_NEWUTS

if TYPE_CHECKING:
    from agent.container.container import Container
    from agent.container.spec.reader import Document

DIRECTORY = "/run/sandbox-ns"
OF_CONTAINER = "container:"
"""The prefix of a path of linux.namespaces[pid] that names a container by the id that follows."""
ENDING_SECONDS = 1.0
"""How long a process that has been killed may take to be gone."""


class SharedNamespaces:
    """The shared namespaces. `paths` maps kind -> path of those that every container joins."""

    def __init__(self) -> None:
        self.paths: Mapping[str, str] = {}
        self._first: Container | None = None
        self._order = loop.Lock()

    def creation_lock(self) -> "loop.Lock":
        """Return the lock to hold while a container is created.

        Until the first container exists creations are serialised, because that container creates
        the shared pid namespace and the others must find it. After that each caller gets a lock of
        its own, so creations run concurrently.
        """
        return self._order if self._first is None else loop.Lock()

    def make(self, hostname: str, directory: str = DIRECTORY) -> None:
        """Create the ipc and uts namespaces, with `hostname` if not empty. Raises StepFailed.

        PID 1 enters them for a moment, without an await in between: a worker that does it takes ten
        times as long. A namespace ends with its last process unless it is mounted (namespaces(7)),
        so each is bind-mounted below `directory` before PID 1 leaves it.
        """
        os.makedirs(directory, exist_ok=True)
        paths = {kind: f"{directory}/{kind}" for kind in ("ipc", "uts")}
        self.unmake(directory)
        for path in paths.values():
            with open(path, "w"):
                pass

        try:
            with NewNamespaces(CLONE_NEWIPC, CLONE_NEWUTS):
                if hostname:
                    socket.sethostname(hostname)
                for kind, path in paths.items():
                    with OwnedFd(open_tree(AT_FDCWD, f"/proc/self/ns/{kind}", OPEN_TREE_CLONE)) as mount:
                        move_mount_path(mount, path)
        except OSError as error:
            raise StepFailed("sandbox namespaces", error.strerror or str(error), error.errno or 0) from error
        self.paths = paths

    def unmake(self, directory: str = DIRECTORY) -> None:
        """Unmount the ipc and uts namespaces. It is no error if they are not mounted."""
        self.paths = {}
        for kind in ("ipc", "uts"):
            try:
                umount2(f"{directory}/{kind}", MNT_DETACH | UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT):
                    raise

    def pid(self) -> str | None:
        """Return the path of the shared pid namespace, which is that of the first container.

        Returns None if there is no container: the next one creates the namespace. Raises WrongState
        if the first container's first process has ended, because the namespace has ended with it
        (pid_namespaces(7)).
        """
        if self._first is None:
            return None
        if self._first.init.exit_status is not None:
            raise WrongState(f"the sandbox's pid namespace has ended with its first container, {self._first.id!r}")
        return f"/proc/{self._first.init.pid}/ns/pid"

    async def check_ending(self) -> None:
        """Raise WrongState if the first container's first process is about to end (`ends_now`)."""
        if self._first is not None and await ends_now(self._first):
            self.pid()

    def created(self, container: "Container") -> None:
        """Record a created container. The first one's pid namespace becomes the shared one."""
        if self._first is None:
            self._first = container

    def removed(self, container: "Container") -> None:
        """Record a removed container. If it was the first, the next one created takes its place."""
        if self._first is container:
            self._first = None


def without_container(document: "Document") -> "tuple[Document, str]":
    """Return the document without a path of a container's pid namespace, and that container's id.

    The id is empty if there is no such path.
    """
    linux = document.get("linux", {})
    namespaces = list(linux.get("namespaces", ()))
    for index, entry in enumerate(namespaces):
        path = entry.get("path", "")
        if entry.get("type") == "pid" and path.startswith(OF_CONTAINER):
            namespaces[index] = {"type": "pid"}
            return {**document, "linux": {**linux, "namespaces": namespaces}}, path.removeprefix(OF_CONTAINER)
    return document, ""


def pid_namespace_of(container: "Container") -> str:
    """Return the path of a container's pid namespace.

    Raises WrongState if its first process has ended, and so the namespace.
    """
    if container.init.exit_status is not None:
        raise WrongState(f"the pid namespace of container {container.id!r} has ended with it")
    return f"/proc/{container.init.pid}/ns/pid"


async def ends_now(container: "Container") -> bool:
    """Return whether a container's first process ends within ENDING_SECONDS.

    While it ends, the kernel kills and reaps the other processes of its pid namespace first.
    clone3(2) into the namespace then fails with ENOMEM already, although the end is not reported
    yet.
    """
    try:
        with loop.timeout(ENDING_SECONDS):
            await container.init.wait()
    except TimeoutError:
        return False
    return True
