"""A node whose containers run in one guest by Kata's shim, unmodified: containerd, the shim, its virtiofsd, and QEMU without KVM.

What lets the shim run on a machine without KVM and vhost-vsock is the harness, a part of the source tree: see its README. The shim itself
is the host's own.
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
from innkeeper.guest.debian_programs import program
from innkeeper.guest.vsock_device import vhost_device_vsock
from innkeeper.vm.shares import is_rust

IMAGE = "localhost/busybox:1"
"""The harness puts it into its containerd."""
SECONDS = 300.0
RUNTIME = ("--runtime", "io.containerd.kata.v2", "--runtime-config-path")
SHIM = "containerd-shim-kata-v2"
SHIM_ENV = "KATA_SHIM"
SHIM_PLACE = "/opt/kata/bin"
"""Where Kata's own releases put it."""
NOT_OURS = ("INITRD", "KERNEL_PARAMS", "SHARED_FS", "DEBUG", "GUEST_SECCOMP", "RECORD", "MEMORY", "VCPUS")
"""Variables of the harness that would decide for the guests what is decided here."""


@dataclass(frozen=True)
class Guest:
    """A guest as the shim is given it. `root_type` is the file system in the image's first partition."""

    name: str
    kernel: Path
    image: Path
    root_type: str


def harness_folder() -> Path:
    """Return the folder of the harness. Raises InnkeeperError: this is no source tree."""
    folder = paths.project_root() / "tests/interop/harness"
    if not folder.is_dir():
        raise InnkeeperError("the harness of Kata's shim is part of the source tree, not of an installed innkeeper", hint="use a clone")
    return folder


def find_shim() -> Path | None:
    """Return Kata's shim on this host: $KATA_SHIM, else on PATH or where Kata's releases put it, or None."""
    if given := os.environ.get(SHIM_ENV):
        return Path(given) if os.access(given, os.X_OK) else None
    found = shutil.which(SHIM, path=os.pathsep.join([os.environ.get("PATH", ""), SHIM_PLACE]))
    return Path(found) if found else None


def why_no_shim() -> str | None:
    """Return why the shim cannot be run here, or None."""
    if find_shim() is not None:
        return None
    if given := os.environ.get(SHIM_ENV):
        return f"{SHIM_ENV}={given} is no program"
    return f"Kata's shim ({SHIM}) is not on this host: neither {SHIM_ENV} nor PATH nor {SHIM_PLACE} has it"


def rust_virtiofsd() -> Path:
    """Return the host's virtiofsd if it is the one in Rust, else Debian 13's. Raises InnkeeperError."""
    found = programs.find("virtiofsd")
    return found if found is not None and is_rust(found) else program("virtiofsd", "/usr/libexec/virtiofsd")


class Node:
    """It is up from `up` to `down`. `folder` exists and is short: the addresses of sockets are in it.

    `settings` are more of the harness's variables. Kata's shim, virtiofsd and vhost-device-vsock are looked for, or built, at once.
    Raises InnkeeperError: one of them cannot be had.
    """

    def __init__(self, folder: Path, guest: Guest, settings: Mapping[str, str], program: Path | None = None) -> None:
        self.folder = folder
        self.guest = guest
        self._program = program or harness_folder() / "interop"
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
        """Run one of its verbs, whatever comes of it. Its streams are files: what it leaves running would keep pipes open."""
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            argv, null = [str(self._program), verb], subprocess.DEVNULL
            done = subprocess.run(argv, env=self._environment, stdin=null, stdout=output, stderr=errors, timeout=seconds, check=False)
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read(), errors.read())

    def up(self) -> None:
        """Start it, with the images busybox and pause. Raises InnkeeperError."""
        self._must("up")

    def down(self) -> None:
        """End it and remove what is its own. Raises InnkeeperError."""
        self._must("down")

    def _must(self, verb: str) -> None:
        done = self.harness(verb)
        if done.returncode:
            raise InnkeeperError(f"{self._program} {verb} failed with {self.guest.name}: {last_line(done.stderr)}")

    def argv(self, *words: str) -> list[str]:
        """Return a command line of containerd's client."""
        return [str(programs.require("ctr")), "--address", f"{self.folder}/containerd.sock", *words]

    def ctr(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run it, whatever comes of it. Its input stays open: where it ends, the shim waits for an end that does not come."""
        reading, writing = os.pipe()
        settings = {"stdin": reading, "capture_output": True, "text": True, "timeout": SECONDS, "check": False, **options}
        try:
            return subprocess.run(self.argv(*words), **settings)
        finally:
            os.close(reading)
            os.close(writing)

    def run(
        self, id: str, *command: str, options: tuple[str, ...] = ("--rm",), configuration: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """`ctr run` of a container of the busybox image in a guest of its own, by `configuration` or the node's."""
        return self.ctr("run", *options, *RUNTIME, str(configuration or self.folder / "kata.toml"), IMAGE, id, *command)


def last_line(text: str) -> str:
    """Return the last line of what a program said."""
    return text.strip().splitlines()[-1] if text.strip() else "it said nothing"
