"""A node that runs pods in our guest by Kata's own shim: the bench's, with a containerd of several handlers, and what it may not leave."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from bench import node as bench
from bench.node import HARNESS as HARNESS
from bench.node import IMAGE as IMAGE
from bench.node import RUNTIME as RUNTIME
from bench.node import SECONDS as SECONDS
from bench.node import Guest
from tests import go_helpers
from tests.eventually import poll
from tests.vm.guest import artifacts

CRI_TOOLS = Path(__file__).resolve().parents[1] / "cri_tools"

# The handler that `innkeeper kata install` gives a node: here with the options of the harness's own, `kata`.
HANDLER = """
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.innkeeper]
      runtime_type = "io.containerd.kata.v2"
      privileged_without_host_devices = true
      pod_annotations = ["io.katacontainers.config.agent.policy"]
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.innkeeper.options]
        ConfigPath = "@DIR@/kata.toml"
"""


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


class Node(bench.Node):
    """A node for our guest. `folder` must be short: the addresses of sockets are in it.

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
        self.snapshotter = snapshotter
        program = own_harness(folder / "harness", snapshotter, containerd)
        (folder / "bin").mkdir()
        for path in programs:
            (folder / "bin" / path.name).symlink_to(path)
        built = artifacts()
        guest = Guest("ours", built.bzImage, built.disk, "erofs")
        super().__init__(folder, guest, {"SHARED_FS": shared_fs, "CRICTL": str(crictl())}, program)

    def run(
        self, id: str, *command: str, options: tuple[str, ...] = ("--rm",), configuration: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """As the bench's, by the node's snapshotter."""
        return super().run(id, *command, options=("--snapshotter", self.snapshotter, *options), configuration=configuration)


def crictl() -> Path:
    """Return CRI's client, built from the module that tests/cri_tools pins."""
    return go_helpers.build("test-crictl", CRI_TOOLS, "sigs.k8s.io/cri-tools/cmd/crictl") / "crictl"


PLACES = (b"/run/vc/", b"/run/kata-containers/")
"""Where the shim keeps what belongs to a machine: it is on the command line of whatever it starts."""


def groups() -> set[Path]:
    """Control groups of containerd's namespaces, or named for systemd. The shim leaves its own, empty, where a host has version 1."""
    root = Path("/sys/fs/cgroup")
    hierarchies = [path for path in (root, *root.iterdir()) if path.is_dir()]
    tops = [hierarchy / namespace for hierarchy in hierarchies for namespace in ("default", "k8s.io")]
    tops += [path for hierarchy in hierarchies for path in hierarchy.glob("*.slice:cri-containerd:*")]
    return {group for top in tops if top.is_dir() for group in (top, *(path for path in top.rglob("*") if path.is_dir()))}


def leftovers(folder: Path) -> set[str]:
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


def remaining_leftovers(folder: Path, before: set[str]) -> set[str]:
    """What `leftovers` has more than `before` once what is ending has had the time to."""
    poll(lambda: not leftovers(folder) - before, 20, every=0.2)
    return leftovers(folder) - before
