"""A node that runs pods in our guest by Kata's own shim: containerd, the shim, its virtiofsd, and QEMU without KVM.

The shim and what lets it run on a machine without KVM and vhost-vsock lie beside the project where it is developed.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from innkeeper.bench.node import rust_virtiofsd
from tests.vm.guest import artifacts

HARNESS = Path(__file__).resolve().parents[3] / "shared/interop/interop"
SECONDS = 300
RUNTIME = ("--runtime", "io.containerd.kata.v2", "--runtime-config-path")
IMAGE = "localhost/busybox:1"
LINGER = ("sh", "-c", '"$@"; status=$?; sleep 0.5; exit $status', "sh")

# The handler that `innkeeper kata install` gives a node: here with the options of the harness's own, `kata`.
HANDLER = """
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.innkeeper]
      runtime_type = "io.containerd.kata.v2"
      privileged_without_host_devices = true
      pod_annotations = ["io.katacontainers.*"]
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.innkeeper.options]
        ConfigPath = "@DIR@/kata.toml"
"""


def why_missing() -> str | None:
    """Why the shim cannot be run here, or None."""
    return None if HARNESS.exists() else "Kata's shim is not beside the project (../shared/interop)"


def own_harness(folder: Path, snapshotter: str, containerd: str) -> Path:
    """The harness in `folder`, with CRI's snapshotter, our handler and more of containerd's configuration; its program."""
    folder.mkdir()
    for part in HARNESS.parent.iterdir():
        (folder / part.name).symlink_to(part)
    for name in (HARNESS.name, "containerd.toml.in"):
        (folder / name).unlink()
        shutil.copy(HARNESS.parent / name, folder / name)
    template = folder / "containerd.toml.in"
    text, count = re.subn(r'^( *snapshotter = )"overlayfs"$', rf'\1"{snapshotter}"', template.read_text(), flags=re.MULTILINE)
    assert count == 1, template
    template.chmod(0o644)
    template.write_text(text + HANDLER + containerd)
    return folder / HARNESS.name


class Node:
    """It is up from `up` to `down`. `folder` must be short: the addresses of sockets are in it.

    `containerd` is more of its configuration, with @DIR@ for `folder`; `programs` go before the host's own.
    """

    def __init__(
        self,
        folder: Path,
        snapshotter: str = "overlayfs",
        shared_fs: str = "virtio-fs",
        containerd: str = "",
        programs: Iterable[Path] = (),
    ) -> None:
        self.folder = folder
        self.snapshotter = snapshotter
        self._harness = own_harness(folder / "harness", snapshotter, containerd)
        (folder / "bin").mkdir()
        for path in programs:
            (folder / "bin" / path.name).symlink_to(path)
        built = artifacts()
        self._environment = {
            **os.environ,
            "INTEROP_DIR": str(folder),
            "KERNEL": str(built.bzImage),
            "IMAGE": str(built.disk),
            "ROOTFS_TYPE": "erofs",
            "SHARED_FS": shared_fs,
            "VIRTIOFSD": str(rust_virtiofsd()),
        }

    def harness(self, verb: str, seconds: float = SECONDS) -> "subprocess.CompletedProcess[str]":
        """Run one of its verbs; whatever comes of it."""
        return subprocess.run(
            [self._harness, verb],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def up(self) -> None:
        """Start it, with the images busybox and pause."""
        done = self.harness("up")
        assert done.returncode == 0, done.stderr

    def down(self) -> None:
        """End it and remove what is its own."""
        done = self.harness("down")
        assert done.returncode == 0, done.stderr

    def argv(self, *words: str) -> list[str]:
        """A command line of containerd's client."""
        return ["ctr", "--address", f"{self.folder}/containerd.sock", *words]

    def ctr(self, *words: str, seconds: float = SECONDS, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run it. Its input is a pipe that stays open: where ctr's ends, the shim waits for an end that does not come."""
        reading, writing = os.pipe()
        try:
            return subprocess.run(
                self.argv(*words), **{"stdin": reading, "capture_output": True, "text": True, "timeout": seconds, "check": False, **options}
            )
        finally:
            os.close(reading)
            os.close(writing)

    def run(
        self, id: str, *command: str, options: tuple[str, ...] = ("--rm",), configuration: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """A container of the busybox image in a guest of its own. It ends half a second after its command.

        Where all is over before containerd's client has opened the pipe of the output, the shim writes it and closes, and it is lost.
        """
        return self.ctr(
            "run",
            "--snapshotter",
            self.snapshotter,
            *options,
            *RUNTIME,
            str(configuration or self.folder / "kata.toml"),
            IMAGE,
            id,
            *command,
        )


PLACES = (b"/run/vc/", b"/run/kata-containers/")
"""Where the shim keeps what belongs to a machine: it is on the command line of whatever it starts."""


def groups() -> set[Path]:
    """Control groups of containerd's namespaces. The shim leaves its own, empty, where a host has version 1."""
    root = Path("/sys/fs/cgroup")
    tops = [hierarchy / namespace for hierarchy in (root, *root.iterdir()) for namespace in ("default", "k8s.io")]
    return {group for top in tops if top.is_dir() for group in (top, *(path for path in top.rglob("*") if path.is_dir()))}


def left_behind(folder: Path) -> set[str]:
    """Mounts and network interfaces that are there now, and processes of the shim's or of the node in `folder`."""
    found = {f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found |= {f"interface {path.name}" for path in Path("/sys/class/net").iterdir()}
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = command.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(place in line for place in (*PLACES, os.fsencode(folder) + b"/")):
            found.add(f"process {command.parent.name} {line[:80]!r}")
    return found


def left_in_the_end(folder: Path, before: set[str]) -> set[str]:
    """What `left_behind` has more than `before` once what is ending has had the time to."""
    deadline = time.monotonic() + 20
    while (left := left_behind(folder) - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left
