"""Storage driver `watchable-bind`: a copy of a small volume that follows the host's changes.

inotify(7) reports no change that the host makes in a shared directory. A program that waits for a
new config map or secret of Kubernetes would never see it. The files are therefore copied to a tmpfs
in the guest. The agent compares them every INTERVAL seconds and repeats each change in the tmpfs,
where inotify reports it.

A volume that is or becomes larger than LIMIT_FILES or LIMIT_BYTES is bind-mounted without a copy.
"""

import os
import stat
from typing import TYPE_CHECKING

from agent import loop
from agent.errors import StepFailed
from agent.linux.mount import clone_tree
from agent.linux.openat2 import open_without_links
from agent.storage import sync_tree
from agent.storage.driver import Context, Detach, mount_filesystem, options_without, refuse_driver_options
from agent.storage.mounted import mount_on, mounted_type, unmount
from agent.storage.mountpoint import check_path
from agent.storage.options import parse
from agent.storage.overlayfs import remove
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

INTERVAL = 2.0
SYNC_SECONDS = 30.0
"""Seconds after which a comparison of a share that does not answer is abandoned until the next."""
LIMIT_FILES = 16
LIMIT_BYTES = 1 << 20


class Watched:
    """A volume that is followed. `bound` is True if it is bind-mounted, as too large to copy."""

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target
        self.bound = False
        self._task: loop.Task[None] | None = None

    async def begin(self) -> None:
        """Copy or bind-mount the volume, then start to follow it. Raises AgentError."""
        try:
            await self._sync(first=True)
        except BaseException:
            await loop.shield(self.end())
            raise
        if not self.bound:
            self._task = loop.spawn(self._follow(), name=f"watch {self.target}")

    async def end(self) -> None:
        """Stop following and remove the copy. The last copy on a tmpfs also removes the tmpfs."""
        task, self._task = self._task, None
        if task is not None:
            await task.stop()  # a copy still in progress would recreate files after the removal
        await run_in_worker(lambda: _unmount(self.target), f"remove {self.target}")

    async def _follow(self) -> None:
        while not self.bound:
            await loop.sleep(INTERVAL)
            try:
                with loop.timeout(SYNC_SECONDS):
                    await self._sync()
            except (StepFailed, TimeoutError):
                continue  # the host is just changing it, or is slow: keep the copy and try again

    async def _sync(self, first: bool = False) -> None:
        outcome = await run_in_worker(lambda: _sync(self.source, self.target, first), f"copy {self.source}")
        self.bound = outcome == b"bound"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Copy `source`, a file or directory, to the mount point and follow its changes.

    A tmpfs is mounted over the parent directory of the mount point to hold the copy.

    The options are checked and otherwise ignored. Kata's shim puts the options of the container's
    own mount here (rbind, rprivate, ro), as the kubelet and containerd chose them. The container's
    mount binds the copy and applies them, so they are not applied twice.
    """
    refuse_driver_options(storage)
    check_path("storage.source", storage.source)
    options_without(storage, "remount", data=False)
    watched = Watched(storage.source, storage.mount_point.rstrip("/"))
    await watched.begin()
    return watched.end


# The functions below run in the worker.


def _sync(source: str, target: str, first: bool) -> bytes:
    """Update the copy and return b"copied".

    Return b"bound" if the volume is too large and has been bind-mounted instead.
    """
    found = open_without_links(source, os.O_PATH)
    small = sync_tree.is_small(found, LIMIT_FILES, LIMIT_BYTES)
    if first:
        _mount_tmpfs(os.path.dirname(target))
    if small:
        sync_tree.copy(found, target)
        return b"copied"
    _bind(found, target)
    return b"bound"


def _mount_tmpfs(directory: str) -> None:
    """Mount a tmpfs over `directory`, which all volumes with this parent directory share."""
    if mounted_type(directory) != "tmpfs":
        mount_filesystem("tmpfs", "watchable", directory, parse(("nosuid", "nodev", "mode=0755")))


def _bind(source: int, target: str) -> None:
    is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
    mount_on(clone_tree(source), target, parse(()), is_directory)


def _unmount(target: str) -> None:
    unmount(target)
    remove([target])
    directory = os.path.dirname(target)
    if mounted_type(directory) == "tmpfs" and not os.listdir(directory):
        unmount(directory)
