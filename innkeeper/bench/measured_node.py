"""A node for one guest that is measured: up within `with`, in a folder of its own, each of its machines timed by what is recorded."""

import secrets
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from innkeeper.bench.node import SECONDS, Guest, Node, last_line
from innkeeper.bench.recording import first_check, starts
from innkeeper.errors import InnkeeperError
from innkeeper.vm import AGENT_PORT

SHORT_PLACE = "/run"
"""Addresses of sockets are in it."""
GROUPS = Path("/sys/fs/cgroup")
DEVICES = (Path("/dev/kvm"), Path("/dev/vhost-vsock"))
"""The shim looks for them; where there are none the harness makes some."""


class MeasuredNode:
    """The folder's name is part of its containers' ids: the shim keeps them all in one place."""

    def __init__(self, guest: Guest) -> None:
        # mkdtemp's names may end with a _, which containerd does not take in an id
        self.folder = Path(SHORT_PLACE, f"inb-{secrets.token_hex(4)}")
        self.guest = guest
        self._node = Node(self.folder, guest, {"RECORD": str(self.folder / "record")})
        self._number = 0
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
            for place in _hierarchies():
                for group in place.glob(f"kata_{self.folder.name}-*"):
                    _remove(group)
            for path in self._made:
                _remove(path)

    def ctr(self, *words: str) -> str:
        """Return what containerd's client prints. Raises InnkeeperError: it fails, or does not end."""
        try:
            done = self._node.ctr(*words)
        except subprocess.TimeoutExpired as error:
            raise InnkeeperError(f"ctr {words[0]} with {self.guest.name} did not end within {SECONDS:.0f} s") from error
        return self._output(words[0], done)

    def run(self, option: str, *command: str) -> str:
        """`ctr run` of the busybox image in a machine of its own; return the container's id. Raises InnkeeperError."""
        self._number += 1
        container = f"{self.folder.name}-{self._number}"
        try:
            done = self._node.run(container, *command, options=(option,))
        except subprocess.TimeoutExpired as error:
            raise InnkeeperError(f"ctr run with {self.guest.name} did not end within {SECONDS:.0f} s") from error
        self._output("run", done)
        return container

    def _output(self, verb: str, done: "subprocess.CompletedProcess[str]") -> str:
        if done.returncode:
            raise InnkeeperError(f"ctr {verb} failed with {self.guest.name}: status {done.returncode}: {last_line(done.stderr)}")
        return done.stdout

    def newest(self) -> int:
        """Return the CID of the machine that was started last."""
        return list(self._starts())[-1]

    def boot_seconds(self, cid: int) -> float:
        """From QEMU's start to the first answered Check of the machine. Raises InnkeeperError: there was none."""
        answers = [answer for path in self._recordings() if (answer := self._first_check(path)) and answer[0] == cid]
        if not answers:
            raise InnkeeperError(f"no Check of {self.guest.name} was recorded")
        return min(moment for _, moment in answers) - self._starts()[cid]

    def forget(self) -> None:
        """Remove the recordings so far, to have few to look through."""
        for path in self._recordings():
            path.unlink()

    def address(self, cid: int) -> str:
        """Return the address of the agent of a running machine, past the shim."""
        return f"hybrid://{self.folder}/vsock/{cid}.uds:{AGENT_PORT}"

    def _recordings(self) -> list[Path]:
        return list((self.folder / "record").glob("*.jsonl"))

    def _starts(self) -> dict[int, float]:
        return starts((self.folder / "qemu.log").read_text())

    @staticmethod
    def _first_check(path: Path) -> tuple[int, float] | None:
        with path.open() as recording:
            return first_check(recording)


def _hierarchies() -> list[Path]:
    """The group of containerd's namespace in each hierarchy. Where a host has version 1, the shim leaves groups in it, empty."""
    return [path / "default" for path in GROUPS.iterdir() if path.is_dir()]


def _remove(path: Path) -> None:
    """A device's node, or a group unless somebody is in it."""
    try:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    except OSError:
        pass
