"""Namespaces to join, checked before anything is made.

Also the two kinds that only the parent can choose for a child: the pid namespace, and those that a
new user namespace would put out of reach.
"""

import fcntl
import os
from collections.abc import Mapping

from agent.container.fd_set import FdSet
from agent.errors import Refused
from agent.linux import process as p

# The order of joining. The mount namespace is last: after it the host's paths are gone.
ORDER = ("user", "ipc", "uts", "net", "cgroup", "time", "mnt")

# Inode numbers that the first mount namespace can have. Fixed since Linux 6.18, before that the
# first or second number that the kernel gives out.
FIRST_MOUNTS = frozenset((0xEFFFFFF8, 0xF0000000, 0xF0000001))


class Namespaces:
    """The namespaces of a new process, by how it gets into them.

    `flags` are made by clone3(2), `join` are joined by the child, `unshare` are made by the child
    with unshare(2), and `pid_fd` is the pid namespace in which it is created.
    """

    def __init__(self, listed: Mapping[str, str | None], overrides: Mapping[str, str], fd_set: FdSet) -> None:
        self.flags = 0
        self.join: list[tuple[int, int]] = []
        self.unshare = 0
        self.user_fd = -1
        self.pid_fd: int | None = None
        joined: dict[str, int] = {}
        for kind, listed_path in listed.items():
            flag = p.NAMESPACE_FLAGS[kind]
            path = listed_path or overrides.get(kind)
            if path is not None:
                joined[kind] = fd_set.add(open_namespace(kind, path))
            elif kind in ("cgroup", "time"):
                # A cgroup namespace has its root where the process is at that moment. A time
                # namespace takes its offsets only as long as no process is in it.
                self.unshare |= flag
            else:
                self.flags |= flag
        self._joined = dict(joined)
        self.user_fd = joined.get("user", -1)
        self.pid_fd = joined.pop("pid", None)
        self.join = [(joined[kind], p.NAMESPACE_FLAGS[kind]) for kind in ORDER if kind in joined]

    @property
    def all_joined(self) -> list[tuple[int, int]]:
        """Everything that is joined, the user namespace last.

        From inside the user namespace, namespaces that it does not own could not be joined any
        more.
        """
        user = p.CLONE_NEWUSER
        pid = [] if self.pid_fd is None else [(self.pid_fd, p.CLONE_NEWPID)]
        return [*pid, *[entry for entry in self.join if entry[1] != user], *[entry for entry in self.join if entry[1] == user]]

    def joins_own(self, kind: str) -> bool:
        """Return whether a namespace that is joined is the agent's own."""
        if kind not in self._joined:
            return False
        return os.fstat(self._joined[kind]).st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino

    def joins_host_mounts(self) -> bool:
        """Return whether the joined mount namespace is that of pid 1, or the kernel's first one."""
        if "mnt" not in self._joined:
            return False
        number = os.fstat(self._joined["mnt"]).st_ino
        try:
            return number in FIRST_MOUNTS or number == os.stat("/proc/1/ns/mnt").st_ino
        except PermissionError:
            # The first process has more privileges than this one, and so has its namespace.
            return False

    def fd_of(self, kind: str) -> int:
        """Return the descriptor of a namespace that is joined, -1 for other kinds."""
        return self._joined.get(kind, -1)


def open_namespace(kind: str, path: str) -> int:
    """Return a namespace's descriptor.

    Raises Refused if the file is not a namespace, or is one of another kind.
    """
    field = f"linux.namespaces[{kind}].path"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(field, f"{path}: {error.strerror}") from error
    try:
        found = fcntl.ioctl(fd, p.NS_GET_NSTYPE)
    except OSError:
        found = 0
    if found != p.NAMESPACE_FLAGS[kind]:
        os.close(fd)
        raise Refused(field, f"{path} is not a {kind} namespace")
    return fd


RETURN_TRIES = 100


class TemporaryNamespaces:
    """Context manager: setns(2) into `namespaces`, so that a child forked inside starts there.

    Each of the original namespaces is opened before it is left, so that only setns(2) itself can
    fail on the way back. Used for the pid namespace, which applies to children only. Also used when
    the child gets a new user namespace, for the namespaces to join that belong to the agent's: from
    inside its user namespace the child could not join them any more.
    """

    def __init__(self, namespaces: list[tuple[int, int]]) -> None:
        self._namespaces = namespaces
        self._originals: list[tuple[int, int]] = []

    def __enter__(self) -> "TemporaryNamespaces":
        names = {flag: kind for kind, flag in p.NAMESPACE_FLAGS.items()}
        try:
            for fd, flag in self._namespaces:
                self._originals.append((os.open(f"/proc/self/ns/{names[flag]}", os.O_RDONLY), flag))
                p.setns(fd, flag)
        except BaseException:
            self.__exit__()
            raise
        return self

    def original(self, flag: int) -> int:
        """Return a descriptor of the original namespace of a kind that the caller has left."""
        return next(fd for fd, kind in self._originals if kind == flag)

    def __exit__(self, *error: object) -> None:
        while self._originals:
            fd, flag = self._originals.pop()
            _restore(fd, flag)
            os.close(fd)


class NewNamespaces(TemporaryNamespaces):
    """Context manager: unshare(2) namespaces of the kinds `flags`, and leave them at the end.

    They end with it unless something else holds them, such as a mount (namespaces(7)).
    """

    def __init__(self, *flags: int) -> None:
        super().__init__([])
        self._flags = flags

    def __enter__(self) -> "NewNamespaces":
        names = {flag: kind for kind, flag in p.NAMESPACE_FLAGS.items()}
        try:
            for flag in self._flags:
                self._originals.append((os.open(f"/proc/self/ns/{names[flag]}", os.O_RDONLY), flag))
                p.unshare(flag)
        except BaseException:
            self.__exit__()
            raise
        return self


def _restore(fd: int, flag: int) -> None:
    """Go back to the original namespace.

    This fails only if the kernel is out of memory. To stay in the container's namespace would be
    worse than to try again.
    """
    for _ in range(RETURN_TRIES - 1):
        try:
            p.setns(fd, flag)
            return
        except OSError:
            continue
    p.setns(fd, flag)
