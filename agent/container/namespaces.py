"""Namespaces to join: checked before anything is made; and the two kinds that only the parent can choose for a child."""

import fcntl
import os
from collections.abc import Mapping

from agent.container.fd_set import Opened
from agent.errors import Refused
from agent.linux import process as p

# Joined in this order; the mount namespace last, since after it the paths of the host are gone.
ORDER = ("user", "ipc", "uts", "net", "cgroup", "time", "mnt")

# The first mount namespace's number: fixed since Linux 6.18, before that the first or second that the kernel gives out.
FIRST_MOUNTS = frozenset((0xEFFFFFF8, 0xF0000000, 0xF0000001))


class Namespaces:
    """What clone3(2) makes, what the child joins, makes by unshare(2), and in which pid namespace it is born."""

    def __init__(self, listed: Mapping[str, str | None], overrides: Mapping[str, str], opened: Opened) -> None:
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
                joined[kind] = opened.add(open_namespace(kind, path))
            elif kind in ("cgroup", "time"):
                # A cgroup namespace roots where the process is; a time namespace takes its offsets before anybody is in it.
                self.unshare |= flag
            else:
                self.flags |= flag
        self._joined = dict(joined)
        self.user_fd = joined.get("user", -1)
        self.pid_fd = joined.pop("pid", None)
        self.join = [(joined[kind], p.NAMESPACE_FLAGS[kind]) for kind in ORDER if kind in joined]

    @property
    def through(self) -> list[tuple[int, int]]:
        """Everything that is joined, the user namespace last: from inside it those of others could not be joined any more."""
        user = p.CLONE_NEWUSER
        pid = [] if self.pid_fd is None else [(self.pid_fd, p.CLONE_NEWPID)]
        return [*pid, *[entry for entry in self.join if entry[1] != user], *[entry for entry in self.join if entry[1] == user]]

    def is_ours(self, kind: str) -> bool:
        """Whether a namespace that is joined is the agent's own."""
        if kind not in self._joined:
            return False
        return os.fstat(self._joined[kind]).st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino

    def is_machines(self) -> bool:
        """Whether the mount namespace that is joined is that of the machine's first process, or the kernel's first."""
        if "mnt" not in self._joined:
            return False
        number = os.fstat(self._joined["mnt"]).st_ino
        try:
            return number in FIRST_MOUNTS or number == os.stat("/proc/1/ns/mnt").st_ino
        except PermissionError:
            return False  # the first process has more rights than we have, and so has its namespace

    def fd_of(self, kind: str) -> int:
        """The descriptor of a namespace that is joined; -1 for another."""
        return self._joined.get(kind, -1)


def open_namespace(kind: str, path: str) -> int:
    """A namespace's descriptor. Raises Refused when the file is none, or one of another kind."""
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


class Borrowed:
    """`with`: the caller is in other namespaces for a moment, so that a child is born in them. The way back is opened before the way out.

    Used for the pid namespace (of children only), and, when the child gets a user namespace of its own, for those to join that belong
    to ours: from inside its user namespace it could not join them any more.
    """

    def __init__(self, wanted: list[tuple[int, int]]) -> None:
        self._wanted = wanted
        self._own: list[tuple[int, int]] = []

    def __enter__(self) -> "Borrowed":
        names = {flag: kind for kind, flag in p.NAMESPACE_FLAGS.items()}
        try:
            for fd, flag in self._wanted:
                self._own.append((os.open(f"/proc/self/ns/{names[flag]}", os.O_RDONLY), flag))
                p.setns(fd, flag)
        except BaseException:
            self.__exit__()
            raise
        return self

    def own(self, flag: int) -> int:
        """A descriptor of the caller's own namespace of a kind that it has left."""
        return next(fd for fd, kind in self._own if kind == flag)

    def __exit__(self, *error: object) -> None:
        while self._own:
            fd, flag = self._own.pop()
            _return(fd, flag)
            os.close(fd)


def _return(fd: int, flag: int) -> None:
    """Go back to a namespace of one's own. Only a lack of memory can be in the way, and to stay would be worse than to try again."""
    for _ in range(RETURN_TRIES - 1):
        try:
            p.setns(fd, flag)
            return
        except OSError:
            continue
    p.setns(fd, flag)
