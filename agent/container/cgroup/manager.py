"""A container's cgroup (v2), created with its limits before any process joins it.

It is removed when no process is left. The parser of the specification has already normalised
`cgroupsPath`.
"""

import os
import signal
from pathlib import Path

from agent import loop
from agent.container.cgroup import files
from agent.container.cgroup.device_program import DeviceFilter
from agent.container.cgroup.limits import change_limits, write_limits
from agent.container.cgroup.plan import writes
from agent.container.cgroup.stats import ContainerStats, flat, read_stats
from agent.container.cgroup.tree import delegate, enable_missing, make_directories, remove_directories, remove_directory, remove_parents
from agent.container.spec.resources import DeviceRule, Resources
from agent.errors import Refused, StepFailed, WrongState
from agent.linux.inotify import Watch

REMOVE_SECONDS = 10.0
FREEZE_SECONDS = 10.0


class Cgroup:
    """An existing cgroup. Raises FileNotFoundError if there is none at `path`.

    `made` lists the directories to remove with it, outermost first. `mknod` and `attached` are as
    in `DeviceFilter`. `fd` is a descriptor of its directory, also used for CLONE_INTO_CGROUP.
    `earlier_oom_kills` is the kernel's count of out-of-memory kills until now, which do not belong
    to this container.
    """

    def __init__(self, path: Path, made: list[Path], mknod: bool, attached: tuple[DeviceRule, ...] | None = None) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.made = made
        self.devices = DeviceFilter(self.fd, mknod, attached)
        try:
            self.earlier_oom_kills = self._oom_kills()
        except OSError:
            self.close()
            raise

    @classmethod
    def create(cls, root: Path, name: str, resources: Resources, mknod: bool = False) -> "Cgroup":
        """Create the cgroup `name` below `root` with its limits.

        The device rules are bound separately. Raises Refused, StepFailed, and WrongState for an
        existing cgroup that has processes or is frozen. A failure leaves nothing behind.
        """
        limits = writes(resources)
        made = make_directories(root, name, {write.controller for write in limits})
        try:
            cgroup = cls(root / name, made, mknod)
        except OSError as error:
            remove_directories(made)
            raise StepFailed("make cgroup", f"{root / name}: {error.strerror}", error.errno or 0) from error
        try:
            cgroup._check_unused()
            write_limits(cgroup.fd, limits)
        except BaseException:
            cgroup.close()
            remove_directories(made)
            raise
        return cgroup

    def frozen(self) -> bool:
        """Return whether the cgroup is set to be frozen. It may still be on the way there."""
        return self.read("cgroup.freeze").strip() == "1"

    def _check_unused(self) -> None:
        """Raise WrongState if the cgroup has processes or is frozen.

        A new cgroup can be frozen too, if one above it is. The container's first process would then
        never run.
        """
        if self.pids():
            raise WrongState(f"cgroup {self.path} has processes already")
        if "frozen 1" in self.read("cgroup.events"):
            raise WrongState(f"cgroup {self.path} is frozen")

    async def apply(self, resources: Resources) -> None:
        """Change the limits that `resources` names. The others stay.

        The files are written in a worker, because the write of a lower memory limit returns only
        when the kernel has reclaimed enough memory, which may take seconds. Raises Refused or
        StepFailed. If a limit is refused the earlier ones are restored. The device rules are
        restored after any failure.
        """
        from agent.worker import run_in_worker

        memory = resources.memory
        if memory.check_before_update and memory.limit is not None and 0 <= memory.limit < int(self.read("memory.current") or 0):
            raise Refused("linux.resources.memory.limit", f"{memory.limit} is less than what is in use")
        limits = writes(resources)
        enable_missing(self.path, self.made, {write.controller for write in limits} - set(self.read("cgroup.controllers").split()))
        rules = self.devices.rules
        if resources.devices:
            self.devices.bind(resources.devices)
        try:
            if limits:
                refused = await run_in_worker(lambda: change_limits(self.fd, limits), "update cgroup", keep=(self.fd,))
                if refused:
                    raise Refused(*refused.decode().split("\0", 1))
        except BaseException:
            self.devices.replace(rules)
            raise

    def delegate(self, owner: int) -> None:
        """Let a user manage cgroups below this one. Raises StepFailed.

        `owner` is a user id in the agent's user namespace.
        """
        try:
            delegate(self.fd, owner)
        except OSError as error:
            raise StepFailed("delegate cgroup", f"{self.path}: {error.strerror}", error.errno or 0) from error

    # files

    def read(self, name: str) -> str:
        """Return a file of the cgroup, or "" as `files.read` does and once the cgroup is closed."""
        return files.read(self.fd, name) if self.fd >= 0 else ""

    # processes

    def pids(self) -> list[int]:
        """Return the processes of the cgroup and of all cgroups below it."""
        own = [int(line) for line in self.read("cgroup.procs").split()]
        return own + [pid for below in self._below() for pid in _pids_in(below)]

    def _below(self) -> list[Path]:
        """Return the cgroups that the container created below its own, deepest first."""
        return [Path(directory) for directory, _, _ in os.walk(self.path, topdown=False) if Path(directory) != self.path]

    def open_cgroup_of(self, pid: int) -> int:
        """Return a descriptor of the cgroup of `pid`, which is this one or one below it.

        Raises WrongState if the process is in none of them.
        """
        for path in [self.path, *self._below()]:
            if pid in _pids_in(path):
                return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        raise WrongState(f"process {pid} is in no cgroup below {self.path}")

    def kill(self) -> None:
        """Send SIGKILL to all processes of the cgroup and below.

        The kernel's cgroup.kill also reaches processes that are just being forked. The fallback for
        kernels without it, one kill per process, may miss them.
        """
        try:
            files.write(self.fd, "cgroup.kill", "1")
        except FileNotFoundError:
            self._signal_each(signal.SIGKILL)

    def signal(self, signum: int) -> None:
        """Send a signal to all processes of the cgroup and below. SIGKILL goes by `kill`."""
        if signum == signal.SIGKILL:
            self.kill()
        else:
            self._signal_each(signum)

    def _signal_each(self, signum: int) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue

    async def freeze(self, frozen: bool) -> None:
        """Freeze or thaw the cgroup and wait for the kernel to finish.

        Raises StepFailed after FREEZE_SECONDS. If freezing fails or is cancelled the cgroup is
        thawed again. If thawing fails or is cancelled the request to thaw stands.
        """
        files.write(self.fd, "cgroup.freeze", str(int(frozen)))
        try:
            with loop.timeout(FREEZE_SECONDS):
                await self._until(f"frozen {int(frozen)}")
        except BaseException as error:
            if frozen:
                files.write(self.fd, "cgroup.freeze", "0")
            if not isinstance(error, TimeoutError):
                raise
            raise StepFailed("freeze cgroup", f"{self.path} is not {'frozen' if frozen else 'thawed'} after {FREEZE_SECONDS} s") from None

    async def _until(self, line: str) -> None:
        """Wait until cgroup.events contains `line`. inotify(7) reports each change of that file."""
        if line in self.read("cgroup.events"):
            return
        # Read again after the watch has begun: a change before that causes no event.
        with Watch(str(self.path / "cgroup.events")) as watch:
            while line not in self.read("cgroup.events"):
                await loop.readable(watch.fd)
                watch.drain()

    async def oom_kills_after(self, seen: int) -> int | None:
        """Wait for out-of-memory kills in the cgroup beyond `seen`. Return the new total.

        Returns None if the cgroup has no processes left and there were no further kills.
        """
        memory, events = self.path / "memory.events", self.path / "cgroup.events"
        try:
            watch = Watch(str(memory), str(events))
        except FileNotFoundError:
            return None  # no memory controller here, or the cgroup is gone
        with watch:
            while True:
                # In this order: if the last process was killed for lack of memory, that kill is
                # counted before the cgroup is reported as empty.
                populated = "populated 1" in self.read("cgroup.events")
                if (count := self._oom_kills()) > seen:
                    return count
                if not populated:
                    return None
                await loop.readable(watch.fd)
                watch.drain()

    def _oom_kills(self) -> int:
        return flat(self.read("memory.events")).get("oom_kill", 0)

    def stats(self) -> ContainerStats:
        """Return the cgroup's resource usage."""
        return read_stats(self.read, os.listdir(self.fd))

    # end

    async def emptied(self) -> None:
        """Wait until no process is left. Raises TimeoutError after REMOVE_SECONDS."""
        if self.path.exists():
            with loop.timeout(REMOVE_SECONDS):
                await self._until("populated 0")

    async def remove(self) -> None:
        """Wait until no process is left, then remove the cgroup and close it.

        Also removes the cgroups below it and the parent directories created for it. Raises
        TimeoutError, StepFailed or OSError, and may then be called again.
        """
        await self.emptied()
        for directory in [*self._below(), self.path]:
            await remove_directory(directory)
        remove_parents(self.path, self.made)
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        self.devices.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _pids_in(path: Path) -> list[int]:
    """Return the processes of one cgroup.

    Returns none if it was removed since it was listed, or if it is threaded.
    """
    try:
        return [int(line) for line in (path / "cgroup.procs").read_text().split()]
    except OSError:
        return []
