"""Copies of the host's files and folders in a guest without a shared folder.

A folder is followed: kubelet makes a new version of a config map, secret or token in a folder
beside the old one, and then replaces one link (`..data`). The guest gets this in the same order, so
that its programs too see all of the old or all of the new one; then what is gone is removed. Of
another folder each file is replaced as a whole. A single file is copied when a container is
created, and not followed: a container is bound to the file and not to its name, as with kubelet's
`subPath`.

There is one copy of a source for all containers of a VM, in the guest's memory.
"""

import contextlib
import hashlib
import os
import stat
import threading
import time
from pathlib import Path

from innkeeper.client import Agent, RpcError
from innkeeper.errors import InnkeeperError
from innkeeper.shim import file_tree, log
from innkeeper.shim.file_tree import ChangedError, Entry, Tree
from innkeeper.shim.inotify import OVERFLOW, Inotify
from innkeeper.wire.pb import agent_pb2

FOLDER = "/run/kata-containers/shared/containers/copies"
PART = 1 << 20
"""Bytes of a file in one request (Kata's contract)."""
ATTEMPTS = 20
SETTLE_SECONDS = 0.1
"""Seconds that a change gets to be complete, and between two attempts."""
RETRY_SECONDS = 2.0
"""Seconds until a failed copy is tried again, and between two looks at what cannot be watched."""


def place(source: Path) -> str:
    """Return where the guest has the copy of a file or folder. `source` has no links in it."""
    return f"{FOLDER}/{hashlib.sha256(os.fsencode(source)).hexdigest()[:24]}"


class Copy:
    """The copy of one file or folder. `users` is the number of containers that have it."""

    def __init__(self, agent: Agent, source: Path, notices: Inotify) -> None:
        self.users = 0
        self.watches: set[int] = set()
        self._agent = agent
        self._source, self._place = source, place(source)
        self._notices = notices
        self._known: Tree = {}

    def update(self) -> None:
        """Copy what has changed.

        Raises InnkeeperError for what cannot be copied, OSError and RpcError.
        """
        for _ in range(ATTEMPTS):
            try:
                self._transfer(file_tree.scan(self._source, lambda folder: self.watches.add(self._notices.watch(folder))))
                return
            except (ChangedError, FileNotFoundError, NotADirectoryError):
                os.stat(self._source)
                time.sleep(SETTLE_SECONDS)
        raise InnkeeperError(f"{self._source} changes faster than it can be copied")

    def _transfer(self, tree: Tree) -> None:
        for name in file_tree.in_order([name for name, entry in tree.items() if self._known.get(name) != entry], tree):
            self._copy(name, tree[name])
            self._known[name] = tree[name]
        for name in file_tree.vanished(self._known, tree):
            self._agent.remove_file(f"{self._place}/{name}")
        self._known = tree

    def _copy(self, name: str, entry: Entry) -> None:
        request = agent_pb2.CopyFileRequest(
            path=f"{self._place}/{name}" if name else self._place, file_mode=entry.mode, dir_mode=0o755, uid=entry.uid, gid=entry.gid
        )
        if not stat.S_ISREG(entry.mode):
            request.data = entry.target
            self._agent.copy_file(request)
            return
        with open(file_tree.open_file(self._source, name, entry.version), "rb") as file:
            request.file_size = entry.version.size
            while True:
                request.data = file.read(min(PART, request.file_size - request.offset))
                if not request.data and request.offset < request.file_size:
                    raise ChangedError
                self._agent.copy_file(request)
                request.offset += len(request.data)
                if request.offset >= request.file_size:
                    return

    def remove(self) -> None:
        """Remove it from the guest. Raises RpcError."""
        self._agent.remove_file(self._place)


class Copies:
    """The copies of one VM. Threads may share it. `close` must be called."""

    def __init__(self, agent: Agent) -> None:
        """Make it, with a thread that follows the folders. Raises OSError."""
        self._agent = agent
        self._copies: dict[str, Copy] = {}
        self._late: set[str] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._notices = Inotify()
        self._thread = threading.Thread(target=self._follow, name="copies", daemon=True)
        self._thread.start()

    def acquire(self, source: Path) -> None:
        """Copy a file or folder, or what has changed of it since, and follow a folder.

        Raises InnkeeperError, OSError and RpcError.
        """
        key = place(source)
        with self._lock:
            copy = self._copies.setdefault(key, Copy(self._agent, source, self._notices))
            copy.users += 1
            try:
                copy.update()
            except BaseException:
                with contextlib.suppress(RpcError):  # the first failure is the one to report
                    self._drop(key)
                raise

    def release(self, source: Path) -> None:
        """Remove the copy with the last container that has it. Raises RpcError."""
        with self._lock:
            self._drop(place(source))

    def _drop(self, key: str) -> None:
        copy = self._copies.get(key)
        if copy is None:
            return
        copy.users -= 1
        if copy.users == 0:
            del self._copies[key]
            self._late.discard(key)
            copy.remove()

    def _follow(self) -> None:
        while not self._closed.is_set():
            changed = self._notices.wait(RETRY_SECONDS if self._late or self._notices.misses else None)
            time.sleep(SETTLE_SECONDS if changed else 0)
            with self._lock:
                for key, copy in self._copies.items():
                    if self._closed.is_set():
                        break
                    if copy.watches and (changed & {*copy.watches, OVERFLOW} or key in self._late or self._notices.misses):
                        self._update(key, copy)
        self._notices.close()

    def _update(self, key: str, copy: Copy) -> None:
        """Bring one copy up to date. A failure is logged once, and tried again."""
        try:
            copy.update()
            self._late.discard(key)
        except FileNotFoundError:
            self._late.discard(key)  # kubelet removes the volumes of a pod that ends: containers keep what they have
        except (OSError, InnkeeperError, RpcError) as error:
            if not self._closed.is_set() and key not in self._late:
                log.error(f"a change is not in the guest yet: {error}")
            self._late.add(key)

    def close(self) -> None:
        """Follow nothing any more. May be called twice."""
        if not self._closed.is_set():
            self._closed.set()
            self._notices.wake()
