"""A node whose containers run in one guest by Kata's shim, unmodified: the shim's harness, started and ended."""

import os
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from innkeeper import programs
from innkeeper.bench.recording import first_check, starts
from innkeeper.errors import InnkeeperError
from innkeeper.guest.debian_programs import program
from innkeeper.vm import AGENT_PORT
from innkeeper.vm.shares import is_rust

IMAGE = "localhost/busybox:1"
"""The harness puts it into its containerd."""
SECONDS = 300.0
SHORT_PLACE = "/run"
"""Addresses of sockets are in it."""
GROUPS = Path("/sys/fs/cgroup")
DEVICES = (Path("/dev/kvm"), Path("/dev/vhost-vsock"))
"""The shim looks for them; where there are none the harness makes some."""
NOT_OURS = ("INITRD", "KERNEL_PARAMS", "SHARED_FS", "DEBUG", "GUEST_SECCOMP")
"""Variables of the harness that would decide for the guests what is decided here."""


@dataclass(frozen=True)
class Guest:
    """A guest as the shim is given it. `root_type` is the file system in the image's first partition."""

    name: str
    kernel: Path
    image: Path
    root_type: str


def rust_virtiofsd() -> Path:
    """The host's virtiofsd if it is the one in Rust, else Debian 13's. Raises InnkeeperError."""
    found = programs.find("virtiofsd")
    return found if found is not None and is_rust(found) else program("virtiofsd", "/usr/libexec/virtiofsd")


class Node:
    """It is up within `with`, in a folder of its own whose name is part of its containers' ids: the shim keeps them all in one place."""

    def __init__(self, harness: Path, guest: Guest, virtiofsd: Path) -> None:
        self.guest = guest
        self.folder = Path()
        self._harness = harness
        self._virtiofsd = virtiofsd
        self._number = 0
        self._made: list[Path] = []

    def __enter__(self) -> "Node":
        self._made = [path for path in (*DEVICES, *_hierarchies()) if not path.exists()]
        # mkdtemp's names may end with a _, which containerd does not take in an id
        self.folder = Path(SHORT_PLACE, f"inb-{secrets.token_hex(4)}")
        self.folder.mkdir(0o700)
        try:
            self._call("up")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        try:
            self._call("down")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            for place in _hierarchies():
                for group in place.glob(f"kata_{self.folder.name}-*"):
                    _remove(group)
            for path in self._made:
                _remove(path)

    def _environment(self) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        return {
            **given,
            "INTEROP_DIR": str(self.folder),
            "KERNEL": str(self.guest.kernel),
            "IMAGE": str(self.guest.image),
            "ROOTFS_TYPE": self.guest.root_type,
            "VIRTIOFSD": str(self._virtiofsd),
            "RECORD": str(self.folder / "record"),
        }

    def _call(self, verb: str) -> None:
        with tempfile.TemporaryFile("w+") as output:  # what the harness leaves running would keep a pipe open
            done = subprocess.run(
                [self._harness, verb],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=SECONDS,
                check=False,
            )
            if done.returncode:
                output.seek(0)
                raise InnkeeperError(f"{self._harness} {verb} failed with {self.guest.name}: {_last(output.read())}")

    def ctr(self, *words: str) -> str:
        """What containerd's client prints. Its input never ends: the shim would wait for an end that does not come."""
        argv = [str(programs.require("ctr")), "--address", f"{self.folder}/containerd.sock", *words]
        reading, writing = os.pipe()
        try:
            done = subprocess.run(argv, stdin=reading, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise InnkeeperError(f"ctr {words[0]} with {self.guest.name} did not end within {SECONDS:.0f} s") from error
        finally:
            os.close(reading)
            os.close(writing)
        if done.returncode:
            raise InnkeeperError(f"ctr {words[0]} failed with {self.guest.name}: status {done.returncode}: {_last(done.stderr)}")
        return done.stdout

    def run(self, option: str, *command: str) -> str:
        """`ctr run` of the busybox image in a machine of its own; the container's id."""
        self._number += 1
        container = f"{self.folder.name}-{self._number}"
        shim = ("--runtime", "io.containerd.kata.v2", "--runtime-config-path", f"{self.folder}/kata.toml")
        self.ctr("run", option, *shim, IMAGE, container, *command)
        return container

    def newest(self) -> int:
        """The CID of the machine that was started last."""
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
        """Of the agent of a running machine, past the shim."""
        return f"hybrid://{self.folder}/vsock/{cid}.uds:{AGENT_PORT}"

    def _recordings(self) -> list[Path]:
        return list((self.folder / "record").glob("*.jsonl"))

    def _starts(self) -> dict[int, float]:
        return starts((self.folder / "qemu.log").read_text())

    @staticmethod
    def _first_check(path: Path) -> tuple[int, float] | None:
        with path.open() as recording:
            return first_check(recording)


def _last(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "it said nothing"


def _hierarchies() -> list[Path]:
    """The group of containerd's namespace in each hierarchy. Where a host has version 1, the shim leaves groups in it, empty."""
    return [path / "default" for path in GROUPS.iterdir() if path.is_dir()]


def _remove(path: Path) -> None:
    """A device's node, or a group unless somebody is in it."""
    try:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    except OSError:
        pass
