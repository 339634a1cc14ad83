"""A container's cgroup (v2): made with its limits before any process is in it, removed when none is left.

All files are opened relative to the group's descriptor. What a caller may name in `cgroupsPath` has been cleaned by the parser.
"""

import errno
import os
import signal
from pathlib import Path

from agent import loop
from agent.container.cgroup import device_program
from agent.container.cgroup.plan import Write, writes
from agent.container.cgroup.stats import ContainerStats, read_stats
from agent.container.cgroup.tree import delegate, enable_missing, make_directories, remove_directories, remove_directory, remove_parents
from agent.container.spec.resources import DeviceRule, Resources
from agent.errors import Refused, StepFailed, WrongState
from agent.linux import bpf
from agent.linux.inotify import Watch

REMOVE_SECONDS = 10.0
FREEZE_SECONDS = 10.0


class Cgroup:
    """A directory of the cgroup2 hierarchy. `fd` is for CLONE_INTO_CGROUP.

    `earlier_oom_kills` is the kernel's count when the group was made or found: no container's of ours.
    """

    def __init__(self, path: Path, made: list[Path]) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.earlier_oom_kills = 0
        self._made = made
        self._rules: tuple[DeviceRule, ...] = ()
        self._program = -1
        self._mknod = False
        self._attached_elsewhere = False

    @classmethod
    def create(cls, root: Path, name: str, resources: Resources, mknod: bool = False) -> "Cgroup":
        """Make the group `name` below `root` with its limits; its device rules are `bind_devices`'. Raises Refused, StepFailed.

        Nothing is left then.
        """
        limits = writes(resources)
        made = make_directories(root, name, {write.controller for write in limits})
        try:
            cgroup = cls(root / name, made)
        except OSError as error:
            remove_directories(made)
            raise StepFailed("make cgroup", f"{root / name}: {error.strerror}", error.errno or 0) from error
        try:
            cgroup._check_unused()
            cgroup.earlier_oom_kills = oom_kills(cgroup.read("memory.events"))
            cgroup._mknod = mknod
            cgroup._write(limits)
        except BaseException:
            cgroup.close()
            remove_directories(made)
            raise
        return cgroup

    @classmethod
    def attach(cls, path: Path, made: list[Path], rules: tuple[DeviceRule, ...], mknod: bool = False) -> "Cgroup":
        """A group that another process has created: `made` are the directories that end with it. Raises FileNotFoundError."""
        cgroup = cls(path, made)
        cgroup._mknod = mknod
        cgroup._rules = device_program.rules_of(rules, mknod)
        cgroup._attached_elsewhere = True
        try:
            cgroup.earlier_oom_kills = oom_kills(cgroup.read("memory.events"))
        except OSError:
            cgroup.close()
            raise
        return cgroup

    @property
    def made(self) -> list[Path]:
        """The directories that were made for this group, outermost first."""
        return list(self._made)

    def frozen(self) -> bool:
        """Whether the group is to be frozen."""
        return self.read("cgroup.freeze").strip() == "1"

    def _check_unused(self) -> None:
        """Also of a group that is new: below a frozen one it is frozen, and the first process would never get anywhere."""
        if self.pids():
            raise WrongState(f"cgroup {self.path} has processes already")
        if "frozen 1" in self.read("cgroup.events"):
            raise WrongState(f"cgroup {self.path} is frozen")

    async def apply(self, resources: Resources) -> None:
        """Change limits; what `resources` does not name stays. Raises Refused, StepFailed; what was there before is restored then.

        In a worker: the kernel takes a lower limit of memory only when so much has been reclaimed, which may take seconds.
        """
        from agent.worker import run_in_worker

        memory = resources.memory
        if memory.check_before_update and memory.limit is not None and 0 <= memory.limit < int(self.read("memory.current") or 0):
            raise Refused("linux.resources.memory.limit", f"{memory.limit} is less than what is in use")
        limits = writes(resources)
        enable_missing(self.path, self._made, {write.controller for write in limits} - set(self.read("cgroup.controllers").split()))
        rules = self._rules
        if resources.devices:
            self._set_devices(device_program.rules_of(resources.devices, self._mknod))
        try:
            if limits:
                refused = await run_in_worker(lambda: self._change(limits), "update cgroup", keep=(self.fd,))
                if refused:
                    raise Refused(*refused.decode().split("\0", 1))
        except BaseException:
            self._set_devices(rules)
            raise

    def _change(self, limits: list[Write]) -> bytes:
        """In the worker: all of it, or nothing and which field was refused why."""
        before: list[Write] = []
        try:
            self._write(limits, before)
        except Refused as error:
            for write in reversed(before):
                try:
                    self._write_file(write.file, write.value)
                except OSError:
                    continue  # its own old value: at worst it is what is there
            return f"{error.field}\0{error.reason}".encode()
        return b""

    def _write(self, limits: list[Write], before: "list[Write] | None" = None) -> None:
        if not limits:
            return
        controllers = self.read("cgroup.controllers").split()
        for write in limits:
            if write.controller not in controllers and write.controller != "cgroup":
                raise Refused(write.field, f"the cgroup v2 hierarchy has no {write.controller} controller here")
        later: list[Write] = []
        for write in limits:
            if before is not None:
                old = self.read(write.file).strip()
                if old and "\n" not in old:
                    before.append(Write(write.field, write.controller, write.file, old))
            self._write_one(write, later)
        for write in later:
            self._write_one(write, None)

    def _write_one(self, write: Write, later: "list[Write] | None") -> None:
        try:
            self._write_file(write.file, write.value)
        except FileNotFoundError:
            if write.instead is not None:
                self._write_one(write.instead, later)
                return
            if not write.optional:
                raise Refused(write.field, f"this kernel has no {write.file}") from None
        except OSError as error:
            # cpu.max.burst is checked against cpu.max, which may come after it.
            if later is not None and error.errno == errno.EINVAL and write.file == "cpu.max.burst":
                later.append(write)
                return
            raise Refused(write.field, f"{write.file} does not take {write.value!r}: {error.strerror}") from error

    def bind_devices(self, rules: tuple[DeviceRule, ...]) -> None:
        """Let the group's processes reach only the devices of `rules` and those every container needs. Raises Refused."""
        self._set_devices(device_program.rules_of(rules, self._mknod))

    def _set_devices(self, complete: tuple[DeviceRule, ...]) -> None:
        if complete == self._rules:
            return
        try:
            if self._attached_elsewhere and self._program < 0:
                self._program = bpf.attached_program(self.fd, bpf.BPF_CGROUP_DEVICE)
            program = device_program.attach(self.fd, complete, self._program)
        except OSError as error:
            raise Refused("linux.resources.devices", f"no device program (CONFIG_CGROUP_BPF): {error.strerror}") from error
        self._close_program()
        self._program = program
        self._rules = complete

    def _close_program(self) -> None:
        if self._program >= 0:
            os.close(self._program)
            self._program = -1

    def delegate(self, owner: int) -> None:
        """Let a user, as the agent sees it, make groups below. Raises StepFailed."""
        try:
            delegate(self.fd, owner)
        except OSError as error:
            raise StepFailed("delegate cgroup", f"{self.path}: {error.strerror}", error.errno or 0) from error

    # files

    def read(self, name: str) -> str:
        """The text of a file of the group; "" where it is missing, or the group removed."""
        if self.fd < 0:
            return ""
        try:
            fd = os.open(name, os.O_RDONLY, dir_fd=self.fd)
        except FileNotFoundError:
            return ""
        try:
            parts = []
            while part := os.read(fd, 1 << 16):
                parts.append(part)
            return b"".join(parts).decode()
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EOPNOTSUPP):
                return ""
            raise
        finally:
            os.close(fd)

    def _write_file(self, name: str, value: str) -> None:
        fd = os.open(name, os.O_WRONLY, dir_fd=self.fd)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    # processes

    def pids(self) -> list[int]:
        """Processes of the group and of those below it."""
        result = [int(line) for line in self.read("cgroup.procs").split()]
        for below in self._below():
            try:
                result += [int(line) for line in (below / "cgroup.procs").read_text().split()]
            except OSError:
                continue  # removed meanwhile, or of threads only
        return result

    def _below(self) -> list[Path]:
        """Groups that the container made below its own, deepest first."""
        return [Path(directory) for directory, _, _ in os.walk(self.path, topdown=False) if Path(directory) != self.path]

    def group_of(self, pid: int) -> int:
        """A descriptor of the group at or below this one that `pid` is in. Raises WrongState when it is in none."""
        for path in [self.path, *self._below()]:
            try:
                if pid in [int(line) for line in (path / "cgroup.procs").read_text().split()]:
                    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
        raise WrongState(f"process {pid} is in no group below {self.path}")

    def kill(self) -> None:
        """SIGKILL for all, which no fork outruns."""
        try:
            self._write_file("cgroup.kill", "1")
        except FileNotFoundError:
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    async def freeze(self, frozen: bool) -> None:
        """Freeze or thaw, and wait until it is so. Raises StepFailed after FREEZE_SECONDS.

        Whatever keeps it from freezing, also that the caller is cancelled, it is thawed again; what is to be thawed stays so.
        """
        self._write_file("cgroup.freeze", str(int(frozen)))
        try:
            with loop.timeout(FREEZE_SECONDS):
                await self._until(f"frozen {int(frozen)}")
        except BaseException as error:
            if frozen:
                self._write_file("cgroup.freeze", "0")
            if not isinstance(error, TimeoutError):
                raise
            raise StepFailed("freeze cgroup", f"{self.path} is not {'frozen' if frozen else 'thawed'} after {FREEZE_SECONDS} s") from None

    async def _until(self, line: str) -> None:
        if line in self.read("cgroup.events"):
            return
        with Watch(str(self.path / "cgroup.events")) as watch:
            while line not in self.read("cgroup.events"):
                await loop.readable(watch.fd)
                watch.drain()

    async def oom_kills_after(self, seen: int) -> int | None:
        """Wait until the kernel has ended more than `seen` processes of the group for want of memory: how many by now.

        None when the group has no process any more, and there were no more of these.
        """
        memory, events = self.path / "memory.events", self.path / "cgroup.events"
        try:
            watch = Watch(str(memory), str(events))
        except FileNotFoundError:
            return None  # no memory controller here, or the group is gone
        with watch:
            while True:
                # in this order: what ended the last process is counted by then
                populated = "populated 1" in self.read("cgroup.events")
                if (count := oom_kills(self.read("memory.events"))) > seen:
                    return count
                if not populated:
                    return None
                await loop.readable(watch.fd)
                watch.drain()

    def stats(self) -> ContainerStats:
        """What the group has used."""
        return read_stats(self.read, os.listdir(self.fd))

    # end

    async def emptied(self) -> None:
        """Wait until no process is left. Raises TimeoutError after REMOVE_SECONDS."""
        if self.path.exists():
            with loop.timeout(REMOVE_SECONDS):
                await self._until("populated 0")

    async def remove(self) -> None:
        """Wait until no process is left, then remove the group, those below it and the parents made for it. May be tried again."""
        await self.emptied()
        for directory in [*self._below(), self.path]:
            await remove_directory(directory)
        remove_parents(self.path, self._made)
        self.close()

    def close(self) -> None:
        """Give the descriptors back."""
        self._close_program()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def oom_kills(events: str) -> int:
    """The count in memory.events."""
    for line in events.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0
