"""A node whose containers run in one guest under Kata's unmodified shim.

It consists of containerd, the shim, its virtiofsd, and QEMU without KVM. The harness, a part of the
source tree, makes the shim work on a host without KVM and vhost-vsock (see its README). The shim
itself is the host's own.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper import paths, programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest.host_programs import debian_program, vhost_device_vsock
from innkeeper.vm.virtiofsd import is_rust

IMAGE = "localhost/busybox:1"
"""The image that the harness imports into its containerd."""
SECONDS = 300.0
"""Seconds that a command may take. The shim dials its guest as long before it gives up."""
RUNTIME = ("--runtime", "io.containerd.kata.v2", "--runtime-config-path")
SHIM = "containerd-shim-kata-v2"
SHIM_ENV = "KATA_SHIM"
SHIM_FOLDER = "/opt/kata/bin"
"""Folder in which Kata's releases install the shim."""
NOT_OURS = ("INITRD", "KERNEL_PARAMS", "SHARED_FS", "DEBUG", "GUEST_SECCOMP", "RECORD", "MEMORY", "VCPUS")
"""Variables of the harness that are removed from the environment.

They would change settings of the guests that are chosen here.
"""


@dataclass(frozen=True)
class Guest:
    """A guest for the shim. `root_type` is the file system in the image's first partition."""

    name: str
    kernel: Path
    image: Path
    root_type: str


HARNESS = paths.project_root() / "tests/interop/harness/interop"
"""The program that makes the shim work on a host without KVM and vhost-vsock."""


def find_shim() -> Path | None:
    """Return the path of Kata's shim on this host, or None.

    Looks at $KATA_SHIM, else searches PATH and the folder of Kata's releases.
    """
    if given := os.environ.get(SHIM_ENV):
        return Path(given) if os.access(given, os.X_OK) else None
    found = shutil.which(SHIM, path=os.pathsep.join([os.environ.get("PATH", ""), SHIM_FOLDER]))
    return Path(found) if found else None


def why_no_shim() -> str | None:
    """Return why the shim cannot run here, or None if it can."""
    if find_shim() is not None:
        return None
    if given := os.environ.get(SHIM_ENV):
        return f"{SHIM_ENV}={given} is not an executable file"
    return f"Kata's shim ({SHIM}) is not on this host: neither {SHIM_ENV} nor PATH nor {SHIM_FOLDER} has it"


def rust_virtiofsd() -> Path:
    """Return the host's virtiofsd if it is the Rust implementation, else Debian 13's.

    Raises InnkeeperError.
    """
    found = programs.find("virtiofsd")
    return found if found is not None and is_rust(found) else debian_program("virtiofsd", "/usr/libexec/virtiofsd")


class Node:
    """A node. It is up between the calls of `up` and `down`.

    `folder` must exist, and its path must be short, because it contains sockets (unix(7)).
    `settings` are further variables of the harness. `seconds` is how long a command of containerd's
    client may take.

    The constructor finds Kata's shim, and finds or builds virtiofsd and vhost-device-vsock. It
    raises InnkeeperError if one of them is not available.
    """

    def __init__(
        self, folder: Path, guest: Guest, settings: Mapping[str, str], program: Path | None = None, seconds: float = SECONDS
    ) -> None:
        self.folder = folder
        self.guest = guest
        self._seconds = seconds
        self._program = program or HARNESS
        shim = find_shim()
        if shim is None:
            raise InnkeeperError(why_no_shim() or "", hint=f"set {SHIM_ENV} to the shim of a Kata installation")
        given = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        self._environment = {
            **given,
            "INTEROP_DIR": str(folder),
            "KERNEL": str(guest.kernel),
            "IMAGE": str(guest.image),
            "ROOTFS_TYPE": guest.root_type,
            SHIM_ENV: str(shim),
            "VIRTIOFSD": str(rust_virtiofsd()),
            "VHOST_DEVICE_VSOCK": str(vhost_device_vsock()),
            **settings,
        }

    def harness(self, verb: str, seconds: float = SECONDS) -> "subprocess.CompletedProcess[str]":
        """Run a subcommand of the harness and return the result, whatever its status.

        Its streams are files. The programs that it leaves running would keep pipes open, and
        reading them would never end.
        """
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            argv, null = [str(self._program), verb], subprocess.DEVNULL
            done = subprocess.run(argv, env=self._environment, stdin=null, stdout=output, stderr=errors, timeout=seconds, check=False)
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read(), errors.read())

    def up(self) -> None:
        """Start the node, with the images busybox and pause. Raises InnkeeperError."""
        self._checked("up")

    def down(self) -> None:
        """Stop the node and remove everything that it created. Raises InnkeeperError."""
        self._checked("down")

    def _checked(self, verb: str) -> None:
        done = self.harness(verb)
        if done.returncode:
            raise InnkeeperError(f"{self._program} {verb} failed with {self.guest.name}: {last_line(done.stderr)}")

    def argv(self, *words: str) -> list[str]:
        """Return a command line for containerd's client."""
        return [str(programs.require("ctr")), "--address", f"{self.folder}/containerd.sock", *words]

    def ctr(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run containerd's client and return the result, whatever its status.

        Its input stays open: if it ended, the shim would wait for an end that never comes.
        """
        reading, writing = os.pipe()
        settings = {"stdin": reading, "capture_output": True, "text": True, "timeout": self._seconds, "check": False, **options}
        try:
            return subprocess.run(self.argv(*words), **settings)
        finally:
            os.close(reading)
            os.close(writing)

    def run(
        self, id: str, *command: str, options: tuple[str, ...] = ("--rm",), configuration: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run the busybox image in a guest of its own (`ctr run`).

        `configuration` replaces the node's configuration of the shim.
        """
        return self.ctr("run", *options, *RUNTIME, str(configuration or self.folder / "kata.toml"), IMAGE, id, *command)


def last_line(text: str) -> str:
    """Return the last line of a program's output, or a text that it printed nothing."""
    return text.strip().splitlines()[-1] if text.strip() else "no output"
