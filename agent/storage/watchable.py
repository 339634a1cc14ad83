"""A small volume of the host's whose changes programs want to hear of: a copy in memory that follows it.

inotify(7) tells nothing of what happens on the host's side of a share. So the files are copied to a tmpfs, looked at every two seconds,
and every change is made there, where a program that watches is told. Kubernetes' config maps and secrets come this way. A volume that is
or becomes larger than LIMIT_FILES or LIMIT_BYTES is bound as it is, without a copy.
"""

import os
import stat
from typing import TYPE_CHECKING

from agent import loop
from agent.errors import Refused, StepFailed
from agent.linux.mount import clone_tree
from agent.linux.openat2 import openat2
from agent.storage import sync_tree
from agent.storage.driver import Context, Detach, mount_filesystem, refuse_driver_options
from agent.storage.mounted import mount_on, mounted_type, take_away
from agent.storage.mountpoint import STRAIGHT, check_path
from agent.storage.options import parse
from agent.storage.overlayfs import remove
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "watchable-bind"
INTERVAL = 2.0
PATIENCE = 30.0
"""Seconds after which a share that does not answer is given up until the next look."""
LIMIT_FILES = 16
LIMIT_BYTES = 1 << 20


class Watched:
    """One volume. `bound`: it is too large to be copied."""

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target
        self.bound = False
        self._task: loop.Task[None] | None = None

    async def begin(self) -> None:
        """Copy, or bind, and then follow. Raises AgentError."""
        try:
            await self._look(first=True)
        except BaseException:
            await self.end()
            raise
        if not self.bound:
            self._task = loop.spawn(self._follow(), name=f"watch {self.target}")

    async def end(self) -> None:
        """Follow no more, and take the copy away; with the last one the tmpfs."""
        task, self._task = self._task, None
        if task is not None:
            await task.stop()  # what it was doing must not come after what follows
        await run_in_worker(lambda: _take_away(self.target), f"remove {self.target}")

    async def _follow(self) -> None:
        while not self.bound:
            await loop.sleep(INTERVAL)
            try:
                with loop.timeout(PATIENCE):
                    await self._look()
            except (StepFailed, TimeoutError):
                continue  # the host is changing it, or slow: what is there stays until the next look

    async def _look(self, first: bool = False) -> None:
        outcome = await run_in_worker(lambda: _look(self.source, self.target, first), f"copy {self.source}")
        self.bound = outcome == b"bound"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Copy `source`, a file or a directory, to the mount point, on a tmpfs that covers the mount point's directory; then follow it.

    The options are those of the container's own mount, as the kubelet and containerd chose them (rbind, rprivate, ro): Kata's shim puts
    them here too. They are that mount's, which binds what is made here and applies them, so nothing of them is applied twice.
    """
    refuse_driver_options(storage)
    check_path("storage.source", storage.source)
    options = parse(storage.options)
    if options.remount or options.data:
        word = "remount" if options.remount else options.data[0][0]
        raise Refused("storage.options", f"{word} makes no sense with driver {NAME}")
    watched = Watched(storage.source, storage.mount_point.rstrip("/"))
    await watched.begin()
    return watched.end


# What follows runs in the worker.


def _look(source: str, target: str, first: bool) -> bytes:
    """Make the copy equal; b"bound" if it is too large and has been bound instead."""
    found = openat2(-100, source, os.O_PATH, STRAIGHT)
    small = sync_tree.is_small(found, LIMIT_FILES, LIMIT_BYTES)
    if first:
        _cover(os.path.dirname(target))
    if small:
        sync_tree.copy(found, target)
        return b"copied"
    _bind(found, target)
    return b"bound"


def _cover(directory: str) -> None:
    if mounted_type(directory) != "tmpfs":
        mount_filesystem("tmpfs", "watchable", directory, parse(("nosuid", "nodev", "mode=0755")))


def _bind(source: int, target: str) -> None:
    is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
    mount_on(clone_tree(source), target, parse(()), is_directory)


def _take_away(target: str) -> None:
    take_away(target)
    remove([target])
    directory = os.path.dirname(target)
    if mounted_type(directory) == "tmpfs" and not os.listdir(directory):
        take_away(directory)
