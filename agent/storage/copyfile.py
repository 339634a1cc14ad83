"""CopyFile: files that the host copies into the guest when no directory is shared.

The source is section 6.3 of Kata's contract. All files are created below one directory. Containers
have parts of it mounted and can place symbolic links there, so a path is never trusted to stay
inside. Every path is resolved against the directory with RESOLVE_IN_ROOT (openat2(2)), in a worker
that Landlock confines to that directory: a link that leads out fails in two ways.

A small file whose path is plain directories in memory is written without a worker, whose fork takes
ten times as long. There no link is followed and no mount is entered (RESOLVE_NO_SYMLINKS,
RESOLVE_NO_XDEV), so nothing can lead out and no share can make PID 1 wait.

A file arrives in parts, one request each. They are collected in a temporary file beside the
target, which is renamed to the target after the last part. A reader thus sees the old file or the
complete new one, never a part.

What was copied is removed by RemoveFile, a call of our own: Kata's interface has none.
"""

import os
import stat
from typing import TYPE_CHECKING

from agent.errors import Refused, StepFailed, WrongState
from agent.linux.fd import OwnedFd
from agent.linux.landlock import confine
from agent.linux.openat2 import IN_ROOT, NO_LINKS, RESOLVE_IN_ROOT, RESOLVE_NO_XDEV, make_directory_in_root, openat2
from agent.storage import tree
from agent.storage.mountpoint import DIRECTORY_MODE, open_directory
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import CopyFileRequest

SHARED_CONTAINERS = "/run/kata-containers/shared/containers"
MEMORY = "/run"
"""A file system in memory (agent/early_boot.py), above SHARED_CONTAINERS."""
PLAIN = RESOLVE_IN_ROOT | RESOLVE_NO_XDEV | NO_LINKS
DIRECT_MAX = 64 << 10
"""Most bytes of a file that is written without a worker."""
MAX_OPEN = 64
"""The number of unfinished copies that are kept. Beginning one more discards the oldest."""
PREFIX = ".copy-"


class _PartialCopy:
    """A file of which not all parts have arrived. `size` and `received` are in bytes."""

    __slots__ = ("received", "size", "temporary")

    def __init__(self, temporary: str, size: int) -> None:
        self.temporary = temporary
        self.size = size
        self.received = 0


class FileCopies:
    """The file copies of one sandbox, in the directory `root`, which is below `memory`."""

    def __init__(self, root: str = SHARED_CONTAINERS, memory: str = MEMORY) -> None:
        self.root = root
        self._memory = memory
        self._partial: dict[str, _PartialCopy] = {}

    async def copy(self, request: "CopyFileRequest") -> None:
        """Create a directory or symbolic link, or write the next part of a file, as `request` says.

        Raises Refused for a path outside `root`, another type of file, or an offset and size that
        do not fit. Raises WrongState for a part that is not the next one of a file in progress.
        """
        path = self._inside(request.path)
        for field, number in (("uid", request.uid), ("gid", request.gid)):
            if number < 0:
                raise Refused(field, f"{number} is below 0")
        kind = stat.S_IFMT(request.file_mode)
        if kind == stat.S_IFDIR:
            await run_in_worker(lambda: _make_directory(self.root, path, request), f"copy {request.path}")
        elif kind == stat.S_IFLNK:
            await run_in_worker(lambda: _make_link(self.root, path, request), f"copy {request.path}")
        elif kind in (stat.S_IFREG, 0):
            await self._write_part(path, request)
        else:
            raise Refused("file_mode", f"{request.file_mode:#o} is no directory, symbolic link or regular file")

    async def remove(self, path: str) -> None:
        """Remove what was copied to `path`, a directory with all its content.

        It is no error if there is nothing. Raises Refused for a path outside `root`, and StepFailed
        for a link or a mount on the way.
        """
        inside = self._inside(path)
        await run_in_worker(lambda: _remove(self.root, inside), f"remove {path}")

    def _inside(self, path: str) -> str:
        """Return `path` relative to the root. Raises Refused for any path not plainly below it."""
        parts = path.split("/")
        if not path.startswith(f"{self.root}/") or any(part in ("", ".", "..") for part in parts[1:]) or "\0" in path:
            raise Refused("path", f"{path!r} is no plain path below {self.root}/")
        return path[len(self.root) + 1 :]

    async def _write_part(self, path: str, request: "CopyFileRequest") -> None:
        """Check that a part is the next one, and write it. A failure discards the whole copy."""
        if request.offset < 0 or request.file_size < 0 or request.offset + len(request.data) > request.file_size:
            raise Refused("offset", f"{len(request.data)} bytes at {request.offset} are not within a file of {request.file_size}")
        if request.file_size <= min(len(request.data), DIRECT_MAX) and path not in self._partial and self._write_directly(path, request):
            return
        partial = await self._begin(path, request) if request.offset == 0 else self._partial.get(path)
        if partial is None or partial.received != request.offset or partial.size != request.file_size:
            raise WrongState(f"{request.path}: the part at {request.offset} is not the next one of a copy in progress")
        last = request.offset + len(request.data) == request.file_size
        if not last and not request.data:
            raise Refused("data", "is empty, and the file is not")
        self._partial[path] = partial
        try:
            await run_in_worker(lambda: _write(self.root, path, partial.temporary, request, last), f"copy {request.path}")
        except BaseException:
            self._partial.pop(path, None)
            raise
        partial.received += len(request.data)
        if last:
            self._partial.pop(path, None)

    def _write_directly(self, path: str, request: "CopyFileRequest") -> bool:
        """Write a whole file in this process.

        Return False if that may block: a worker has to do it. Raises StepFailed.
        """
        try:
            parent = _open_plain(self._memory, self.root, os.path.dirname(path))
            if parent is None:
                return False
            with OwnedFd(parent):
                name = os.path.basename(path)
                if not _may_be_replaced(parent, name):
                    return False
                _write_to(parent, name, PREFIX + os.urandom(8).hex(), request, last=True)
                return True
        except OSError as error:
            raise StepFailed(f"copy {request.path}", error.strerror or str(error), error.errno or 0) from error

    async def _begin(self, path: str, request: "CopyFileRequest") -> _PartialCopy:
        """Begin a copy. Discard an unfinished one of the same file, else the oldest of too many."""
        if path in self._partial or len(self._partial) >= MAX_OPEN:
            old = path if path in self._partial else next(iter(self._partial))
            temporary = self._partial.pop(old).temporary
            await run_in_worker(lambda: _discard(self.root, old, temporary), f"copy {old}")
        return _PartialCopy(PREFIX + os.urandom(8).hex(), request.file_size)


def _open_plain(memory: str, root: str, folder: str) -> int | None:
    """Return a descriptor of `folder` below `root`, which is made if missing.

    Returns None if something on the way below `memory` is a mount or a link, or `folder` is
    missing.
    """
    if not root.startswith(f"{memory}/"):
        return None
    below = root[len(memory) + 1 :]
    with OwnedFd(os.open(memory, os.O_PATH | os.O_DIRECTORY)) as base:
        try:
            if folder:
                return openat2(base, f"{below}/{folder}", os.O_PATH | os.O_DIRECTORY, PLAIN)
            return make_directory_in_root(base, below, DIRECTORY_MODE, PLAIN)
        except OSError:
            return None


def _may_be_replaced(parent: int, name: str) -> bool:
    """Return whether `name` is missing, or neither a directory nor a mount."""
    try:
        with OwnedFd(openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, PLAIN)) as found:
            return not stat.S_ISDIR(os.fstat(found).st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _write_to(parent: int, name: str, temporary: str, request: "CopyFileRequest", last: bool) -> None:
    """Write a part. After the last part set the file's owner and mode and rename it into place.

    A failure removes the temporary file. Raises OSError.
    """
    flags = os.O_CREAT | os.O_EXCL if request.offset == 0 else 0
    try:
        with OwnedFd(os.open(temporary, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o600, dir_fd=parent)) as file:
            data = memoryview(request.data)
            position = request.offset
            while data:
                written = os.pwrite(file, data, position)
                data, position = data[written:], position + written
            if last:
                os.fchown(file, request.uid, request.gid)
                os.fchmod(file, stat.S_IMODE(request.file_mode))
        if last:
            tree.replace(parent, temporary, name)
    except OSError:
        tree.unlink(parent, temporary)
        raise


# The functions below run in the worker. They leave descriptors open: the worker exits after its one
# request.


def _make_directory(root: str, path: str, request: "CopyFileRequest") -> None:
    parent, name = _open_parent(root, path, request)
    kind = tree.file_type(parent, name)
    if kind not in (None, stat.S_IFDIR):
        os.unlink(name, dir_fd=parent)
    if kind != stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=parent)
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    os.fchown(directory, request.uid, request.gid)
    os.fchmod(directory, stat.S_IMODE(request.file_mode))


def _make_link(root: str, path: str, request: "CopyFileRequest") -> None:
    parent, name = _open_parent(root, path, request)
    temporary = PREFIX + os.urandom(8).hex()
    os.symlink(request.data, temporary.encode(), dir_fd=parent)
    try:
        os.chown(temporary, request.uid, request.gid, dir_fd=parent, follow_symlinks=False)
        tree.replace(parent, temporary, name)
    except OSError:
        os.unlink(temporary, dir_fd=parent)
        raise


def _write(root: str, path: str, temporary: str, request: "CopyFileRequest", last: bool) -> None:
    parent, name = _open_parent(root, path, request)
    _write_to(parent, name, temporary, request, last)


def _remove(root: str, path: str) -> None:
    try:
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY)
        confine(directory)
        parent = openat2(directory, os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY, PLAIN)
        tree.remove_tree(parent, os.path.basename(path))
    except FileNotFoundError:
        return


def _discard(root: str, path: str, temporary: str) -> None:
    """Remove the temporary file of an unfinished copy."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY)
    confine(directory)
    try:
        parent = openat2(directory, os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY, IN_ROOT)
    except FileNotFoundError:
        return
    tree.unlink(parent, temporary)


def _open_parent(root: str, path: str, request: "CopyFileRequest") -> tuple[int, str]:
    """Confine this process and return (descriptor of the parent directory of `path`, last name).

    Missing directories are created with the request's `dir_mode`, or 0750 if that is 0. Only the
    last one gets the file's owner and group.
    """
    directory = open_directory(root)
    confine(directory)
    above, name = os.path.split(path)
    if not above:
        return directory, name
    try:
        return openat2(directory, above, os.O_PATH | os.O_DIRECTORY, IN_ROOT), name
    except FileNotFoundError:
        mode = stat.S_IMODE(request.dir_mode) or 0o750
        os.umask(0)
        parent = make_directory_in_root(directory, above, mode)
        os.chown(f"/proc/self/fd/{parent}", request.uid, request.gid)
        return parent, name
