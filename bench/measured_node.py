"""A node for one measured guest, whose VMs are timed by the harness's recordings.

It is up inside a `with` block and has a folder of its own.
"""

import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from bench import standstill
from bench.node import Guest, Node, last_line
from bench.recording import CHECK, Start, first_answer, starts
from innkeeper import progress
from innkeeper.errors import InnkeeperError
from innkeeper.vm import AGENT_PORT

SHORT_PARENT = "/run"
"""Parent of the node's folder, which contains sockets: their paths are limited (unix(7))."""
CGROUPS = Path("/sys/fs/cgroup")
DEVICES = (Path("/dev/kvm"), Path("/dev/vhost-vsock"))
"""Devices that the shim requires. The harness creates those that the host lacks."""
SECONDS = 120.0
"""Seconds that a command may take: many times what it takes on a busy machine."""
T = TypeVar("T")


class StoodStill(InnkeeperError):
    """A command of containerd's client did not end in time."""


class MeasuredNode:
    """A node for one guest.

    Its folder's name is part of its containers' ids, because the shim keeps the containers of all
    nodes in one place.
    """

    def __init__(self, guest: Guest) -> None:
        # mkdtemp's names may end with "_", which containerd does not accept in an id.
        self.folder = Path(SHORT_PARENT, f"inb-{secrets.token_hex(4)}")
        self.guest = guest
        self._node = Node(self.folder, guest, {"RECORD": str(self.folder / "record")}, seconds=SECONDS)
        self._number = 0
        self.repeated = 0
        """How many measurements were done once more because a command stood still."""
        self._made: list[Path] = []

    def __enter__(self) -> "MeasuredNode":
        self._made = [path for path in (*DEVICES, *_hierarchies()) if not path.exists()]
        self.folder.mkdir(0o700)
        try:
            self._node.up()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        try:
            self._node.down()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            for hierarchy in _hierarchies():
                for cgroup in hierarchy.glob(f"kata_{self.folder.name}-*"):
                    _remove(cgroup)
            for path in self._made:
                _remove(path)

    def ctr(self, *words: str) -> str:
        """Run containerd's client and return its output.

        Raises InnkeeperError if it fails, and StoodStill if it does not end.
        """
        try:
            done = self._node.ctr(*words)
        except subprocess.TimeoutExpired as error:
            raise self._stood_still(" ".join(words[:2])) from error
        return self._output(words[0], done)

    def run(self, option: str, *command: str) -> str:
        """Run the busybox image in a VM of its own (`ctr run`) and return the container's id.

        Raises InnkeeperError if it fails, and StoodStill if it does not end.
        """
        self._number += 1
        container = f"{self.folder.name}-{self._number}"
        try:
            done = self._node.run(container, *command, options=(option,))
        except subprocess.TimeoutExpired as error:
            raise self._stood_still("run") from error
        self._output("run", done)
        return container

    def measure(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which uses this node.

        If a command stands still, warns with what the VM was doing, starts the node anew and does
        `work` once more. Raises InnkeeperError, and StoodStill if that stands still as well.
        """
        try:
            return work()
        except StoodStill as error:
            progress.warn(f"{error.message}: measuring this round once more")
            self.repeated += 1
            self._node.down()
            self._node.up()
            return work()

    def _stood_still(self, verb: str) -> StoodStill:
        """Return the error for a command that did not end. It says what the newest VM is doing."""
        title = f"ctr {verb} with {self.guest.name} did not end within {SECONDS:.0f} s"
        if not (begun := self._starts()):
            return StoodStill(f"{title}: no QEMU was started")
        cid, start = list(begun.items())[-1]
        return StoodStill(f"{title}: {standstill.describe(self.folder, cid, start.pid, bool(self._answers(cid)))}")

    def _output(self, verb: str, done: "subprocess.CompletedProcess[str]") -> str:
        if done.returncode:
            raise InnkeeperError(f"ctr {verb} failed with {self.guest.name}: status {done.returncode}: {last_line(done.stderr)}")
        return done.stdout

    def newest(self) -> int:
        """Return the CID of the VM that was started last."""
        return list(self._starts())[-1]

    def boot_seconds(self, cid: int, call: str = CHECK) -> float:
        """Return the seconds from QEMU's start to the VM's first answered Check, or other call.

        Raises InnkeeperError if none was answered.
        """
        answers = self._answers(cid, call)
        if not answers:
            raise InnkeeperError(f"no {call.rpartition('/')[2]} of {self.guest.name} was recorded")
        return min(answers) - self._starts()[cid].moment

    def _answers(self, cid: int, call: str = CHECK) -> list[float]:
        """Return the Unix time of the first answered call of this name for each VM."""
        found = []
        for path in self._recordings():
            with path.open() as recording:
                answer = first_answer(recording, call)
            if answer and answer[0] == cid:
                found.append(answer[1])
        return found

    def clear_recordings(self) -> None:
        """Remove the recordings so far, so that there are fewer to search."""
        for path in self._recordings():
            path.unlink()

    def address(self, cid: int) -> str:
        """Return the address of the agent of a running VM, which bypasses the shim."""
        return f"hybrid://{self.folder}/vsock/{cid}.uds:{AGENT_PORT}"

    def _recordings(self) -> list[Path]:
        return list((self.folder / "record").glob("*.jsonl"))

    def _starts(self) -> dict[int, Start]:
        try:
            return starts((self.folder / "qemu.log").read_text())
        except FileNotFoundError:  # none yet
            return {}


def repeats(nodes: Iterable[MeasuredNode]) -> str:
    """Return for a section's note which measurements were repeated. Empty if none was."""
    return "".join(f"; repeated because they stood still: {node.repeated} with {node.guest.name}" for node in nodes if node.repeated)


def _hierarchies() -> list[Path]:
    """Return the cgroup of containerd's namespace in each hierarchy.

    On a host with cgroup version 1, the shim leaves empty cgroups in them.
    """
    return [path / "default" for path in CGROUPS.iterdir() if path.is_dir()]


def _remove(path: Path) -> None:
    """Remove a device node, or a cgroup unless it is in use."""
    try:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    except OSError:
        pass
