"""The state of containers: one directory for each, below the root.

mkdir(2) makes it, so an id is unique even if two callers use it at the same time.

    ROOT/ID/state.json      the record, always complete: written to another name and renamed
    ROOT/ID/config.json     the specification as applied: later changes of the bundle do nothing
    ROOT/ID/start.sock      the first process listens on it until it is started
    ROOT/ID/holder.json     the process that took the lock last

A lock on the directory (flock(2)) serialises the subcommands that change the container. The kernel
releases it when its holder ends, in whatever way.
"""

import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.container.lifecycle import Status
from agent.container.spec.document import check_id
from agent.container.spec.reader import Document
from agent.errors import AlreadyExists, NotFound, StepFailed
from agent.oci.record import ObservedState, Record, open_process, start_time

STATE, CONFIG, SOCKET, HOLDER = "state.json", "config.json", "start.sock", "holder.json"
BACKLOG = 16
CONNECT_SECONDS = 10.0
KILL_SECONDS, GIVE_UP_SECONDS = 10.0, 20.0
"""Seconds until a holder that was asked to release the lock is killed, and until we give up."""


class StateDir:
    """The state directory of one container. `fd` is its descriptor.

    Close it with `close`, or by `with`.
    """

    def __init__(self, path: Path) -> None:
        self.id = path.name
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._lock_held = False

    @classmethod
    def create(cls, root: Path, id: str) -> "StateDir":
        """Create a state directory and lock it. Raises Refused, AlreadyExists."""
        path = root / check_id(id)
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            raise AlreadyExists(f"container {id!r} exists already") from None
        state_dir = cls(path)
        state_dir.lock()
        return state_dir

    @classmethod
    def open(cls, root: Path, id: str) -> "StateDir":
        """Open the state directory of an existing container. Raises Refused, NotFound."""
        path = root / check_id(id)
        try:
            return cls(path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"container {id!r} does not exist") from None

    def __enter__(self) -> "StateDir":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor, which releases the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lock(self) -> None:
        """Wait until no other subcommand changes this container, and lock it.

        Raises NotFound if it has been deleted meanwhile.
        """
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        self._locked()

    def lock_by_force(self) -> None:
        """Lock the container as `lock` does, but make the lock's holder end.

        The holder gets SIGTERM, and SIGKILL after KILL_SECONDS. Raises NotFound, StepFailed.
        """
        started, asked = time.monotonic(), False
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = time.monotonic() - started
                if waited > GIVE_UP_SECONDS:
                    raise StepFailed("lock", f"another process does not let go of container {self.id!r}", errno.EBUSY) from None
                if not asked or waited > KILL_SECONDS:
                    self._signal_holder(signal.SIGTERM if not asked else signal.SIGKILL)
                    asked = True
                time.sleep(0.02)
                continue
            self._locked()
            return

    def _locked(self) -> None:
        if not os.fstat(self.fd).st_nlink:
            raise NotFound(f"container {self.id!r} does not exist")
        self._lock_held = True
        self._write(HOLDER, {"pid": os.getpid(), "start_time": start_time(os.getpid())})

    def _signal_holder(self, signum: int) -> None:
        try:
            holder = self._read(HOLDER)
        except NotFound:
            return
        pidfd = open_process(holder["pid"], holder["start_time"])
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signum)
            os.close(pidfd)

    def unlock(self) -> None:
        """Release the lock."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        self._lock_held = False

    def is_locked(self) -> bool:
        """Return whether another process changes this container now."""
        if self._lock_held:
            return False
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return False

    # status

    def observe(self) -> ObservedState:
        """Return the record and the status of a container. Raises NotFound."""
        try:
            record = self.load()
        except NotFound:
            if not self.is_locked():
                raise
            # Its creator has made the directory, and nothing else yet.
            record = Record(id=self.id, version="", bundle="", rootfs="", created="", owner="", annotations={}, cgroup="")
            return ObservedState(record, Status.CREATING)
        return ObservedState(record, self._status(record))

    def _status(self, record: Record) -> Status:
        if not record.pid:
            return Status.CREATING if self.is_locked() else Status.STOPPED
        pidfd = record.open_init()
        if pidfd < 0:
            return Status.STOPPED
        os.close(pidfd)
        connection = self.connect()
        if connection is not None:
            connection.close()
            return Status.CREATED
        try:
            frozen = Path(record.cgroup, "cgroup.freeze").read_text(encoding="ascii").strip() == "1"
        except OSError:
            frozen = False
        return Status.PAUSED if frozen else Status.RUNNING

    # files

    def save(self, record: Record) -> None:
        """Write the record."""
        self._write(STATE, asdict(record))

    def load(self) -> Record:
        """Return the record.

        Raises NotFound if there is none: the container has just been deleted, or its creation was
        interrupted.
        """
        document = self._read(STATE)
        document["made"] = tuple(document["made"])
        return Record(**document)

    def save_config(self, document: Document) -> None:
        """Store the specification."""
        self._write(CONFIG, document)

    def load_config(self) -> Document:
        """Return the specification that was applied. Raises NotFound."""
        return self._read(CONFIG)

    def _write(self, name: str, document: Document) -> None:
        fresh = f".{name}.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(document, file, ensure_ascii=False)
        os.replace(fresh, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            raise NotFound(f"container {self.id!r} does not exist") from None
        with os.fdopen(fd, encoding="utf-8", errors="surrogateescape") as file:
            document: dict[str, Any] = json.load(file)
        return document

    def remove(self) -> None:
        """Remove the directory.

        The record is removed first, so that a crash leaves nothing that is taken for a container.
        """
        try:
            names = sorted(os.listdir(self.fd), key=lambda name: name != STATE)
            for name in names:
                os.unlink(name, dir_fd=self.fd)
            os.rmdir(self.path)
        except FileNotFoundError:
            pass

    # the start

    def listen(self) -> socket.socket:
        """Return a socket that the first process inherits and awaits its start on.

        Its path is in this directory, so only a process that may enter that can connect.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self._socket_path())
        listener.listen(BACKLOG)
        return listener

    def connect(self) -> socket.socket | None:
        """Return a connection to the first process, or None if it does not await its start.

        Closing it without sending anything has no effect. Raises StepFailed.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(self._socket_path())
        except (ConnectionRefusedError, FileNotFoundError):
            connection.close()
            return None
        except OSError as error:
            connection.close()
            raise StepFailed("connect to the first process", error.strerror or str(error), error.errno or errno.ETIMEDOUT) from error
        return connection

    def remove_socket(self) -> None:
        """Remove the socket's name, because no process listens any more."""
        try:
            os.unlink(SOCKET, dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def _socket_path(self) -> str:
        """Return the socket's path by way of the directory's descriptor.

        A socket's path has at most 108 bytes (unix(7)), and an id alone may have 255.
        """
        return f"/proc/self/fd/{self.fd}/{SOCKET}"


def state_dirs(root: Path) -> Iterator[StateDir]:
    """Yield the state directory of each container. It is open until the next one."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return
    for name in names:
        try:
            state_dir = StateDir(root / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with state_dir:
            yield state_dir


@contextmanager
def locked(root: Path, id: str) -> Iterator[StateDir]:
    """Context manager: open and lock a container's state directory. Raises Refused, NotFound."""
    with StateDir.open(root, id) as state_dir:
        state_dir.lock()
        yield state_dir
