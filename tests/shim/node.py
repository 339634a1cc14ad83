"""A containerd of our own that runs containers by our shim as a node has it, with CRI; what its clients say; what it may not leave."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from innkeeper import programs
from innkeeper.node import Layout, install
from innkeeper.shim.arguments import Arguments
from innkeeper.shim.bootstrap import socket_path
from tests.eventually import eventually, poll
from tests.interop.node import HARNESS, crictl
from tests.paths import ROOT
from tests.shim.containerds import Containerd, of_debian_12
from tests.vm.guest import artifacts

IMAGE = "localhost/busybox:1"
RUNTIME = "io.containerd.innkeeper.v2"
SECONDS = 180.0
STARTING = "server is not initialized yet"
NUMBERS = count()
"""Nodes of this process, each with a bridge and a network of its own."""

CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
    "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{folder}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
disable_tcp_service = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
max_conf_num = {networks}
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "innkeeper"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.innkeeper]
runtime_type = "io.containerd.innkeeper.v2"
privileged_without_host_devices = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.innkeeper.options]
ConfigPath = "{folder}/shim.toml"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.template]
runtime_type = "io.containerd.innkeeper.v2"
privileged_without_host_devices = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.template.options]
ConfigPath = "{folder}/template.toml"
"""
CNI = {
    "cniVersion": "0.4.0",
    "name": "shim",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "",
            "isGateway": True,
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [], "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}


class Node:
    """The daemon in `folder`, whose path must be short: the addresses of sockets are in it."""

    def __init__(
        self,
        folder: Path,
        containerd: Containerd,
        configuration: str = "",
        programs: Iterable[Path] = (),
        networks: int = 1,
        plugins: Iterable[dict[str, Any]] = (),
        inside: Iterable[str] = (),
    ) -> None:
        """Use `containerd`, with more of its configuration, in which @DIR@ stands for `folder`. It finds `programs` before others.

        With `networks` 2 each pod has a second interface, with an IPv6 address. `plugins` of CNI come after the bridge.
        The daemon is run by the command `inside`.
        """
        self._inside = tuple(inside)
        self._networks = networks
        self._plugins = tuple(plugins)
        self.folder = folder
        self.containerd = containerd
        number = next(number for number in NUMBERS if not Path(f"/sys/class/net/ink-shim{number}").exists())
        self.bridge, self._network = f"ink-shim{number}", f"10.88.{79 + number}"
        self.gateway, self.second_gateway = f"{self._network}.1", f"fd00:88:{number}::1"
        self._programs = tuple(programs)
        self._more = configuration.replace("@DIR@", str(folder))
        self._daemon: subprocess.Popen[bytes] | None = None
        self._template: Path | None = None
        self.values: dict[str, Any] = {}
        """The shim's configuration, but for the folder of templates."""
        self.groups: set[tuple[str, str]] = set()
        """Namespace and id of each container and pod that there was: the names of their shims' sockets are made from these."""

    def up(self) -> None:
        """Start containerd and import the images."""
        self._configure()
        self.start()
        for name, *entry in (("localhost/busybox:1",), ("localhost/pause:1", "-e", "tail", "-f", "/dev/null")):
            archive = self.folder / "image.tar"
            busybox = str(programs.require("busybox"))
            subprocess.run([HARNESS.parent / "make-image", archive, name, *entry, "--", busybox], check=True, capture_output=True)
            for namespace in ("default", "k8s.io"):
                self.ctr("--namespace", namespace, "image", "import", archive)

    def _configure(self) -> None:
        (self.folder / "cni").mkdir()
        layout = Layout(self.folder / "opt", self.folder / "etc", self.folder / "bin")
        install(layout, artifacts())
        for path in self._programs:
            (self.folder / "bin" / path.name).symlink_to(path)
        (self.folder / "config.toml").write_text(CONTAINERD.format(folder=self.folder, networks=self._networks) + self._more)
        network = json.loads(json.dumps(CNI))
        plugin = network["plugins"][0]
        plugin["bridge"] = self.bridge
        plugin["ipam"] |= {"dataDir": str(self.folder / "cni-state"), "ranges": [[{"subnet": f"{self._network}.0/24"}]]}
        chain = [*network["plugins"], *self._plugins]
        (self.folder / "cni/10-shim.conflist").write_text(json.dumps({**network, "plugins": chain}))
        plugin["bridge"] += "b"
        plugin["ipam"] |= {"ranges": [[{"subnet": f"{self.second_gateway[:-1]}/64"}]], "routes": [{"dst": "fd00:99::/32"}]}
        (self.folder / "cni/20-second.conflist").write_text(json.dumps({**network, "name": "second"}))
        values: dict[str, Any] = {"kernel": layout.share / "vmlinux", "root": layout.share / "rootfs.erofs", "state": self.folder / "vms"}
        values |= {"accelerator": "tcg", "boot_seconds": 120}
        values |= {name: programs.require(name) for name in ("virtiofsd", "setpriv", "nsenter")}
        values["qemu"] = programs.require("qemu-system-x86_64")
        self.values = values
        self.settings(**values, templates=self.folder / "none")
        self.settings("template.toml", **values, templates=self.folder / "templates")

    def settings(self, name: str = "shim.toml", /, **values: object) -> Path:
        """Write a configuration of the shim."""
        path = self.folder / name
        lines = [f"{key} = {value if isinstance(value, int) else json.dumps(str(value))}\n" for key, value in values.items()]
        path.write_text("".join(lines))
        return path

    def make_template(self) -> Path:
        """Make the template that VMs of the handler `template` start from, if there is none. Return its folder."""
        if self._template is not None and self._template.is_dir():
            return self._template
        argv = [sys.executable, "-m", "innkeeper.cli", "shim", "template", "--config", str(self.folder / "template.toml")]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self._template = self.folder / "templates" / done.stdout.strip()
        return self._template

    def start(self, *, sandboxes: bool = False) -> None:
        """Start the daemon, or start it again. With `sandboxes` it may use the sandbox service."""
        daemon = str(self.containerd.daemon)
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "INNKEEPER_SHIM_CONFIG": f"{self.folder}/shim.toml"}
        environment |= {"ENABLE_CRI_SANDBOXES": "1"} if sandboxes else {}  # containerd 1.7 has them only so
        with self.log.open("ab") as log:
            argv = [*self._inside, daemon, "--config", f"{self.folder}/config.toml"]
            self._daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        eventually(lambda: self.try_ctr("version").returncode == 0, self.log.read_text, SECONDS)

    def stop(self) -> None:
        """End the daemon. Containers go on."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait()
            self._daemon = None

    def lost(self) -> None:
        """Reap the daemon, which was killed."""
        if self._daemon is not None:
            self._daemon.wait()
            self._daemon = None

    @property
    def daemon_pid(self) -> int:
        """The process id of the daemon, or 0."""
        return self._daemon.pid if self._daemon is not None else 0

    @property
    def log(self) -> Path:
        """The daemon's log, and its shims'."""
        return self.folder / "containerd.log"

    def argv(self, *words: object) -> list[str]:
        """A command line of containerd's client."""
        return [str(self.containerd.client), "--address", f"{self.folder}/c.sock", *map(str, words)]

    def try_ctr(self, *words: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run containerd's client, whatever comes of it."""
        return _text_of(self.argv(*words), **options)

    def ctr(self, *words: object, **options: Any) -> str:
        """Run a command of containerd's client that succeeds. Return its output."""
        done = self.try_ctr(*words, **options)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr, self.log.read_text()[-4000:])
        return done.stdout

    def run_words(self, *words: str) -> list[str]:
        """The words of `run` with our shim, whose options come before the id."""
        *options, id = words
        self.groups.add(("default", id))
        return ["run", "--runtime", RUNTIME, *options, IMAGE, id]

    def run(self, id: str, *command: str, options: tuple[str, ...] = ("--rm",), **more: Any) -> "subprocess.CompletedProcess[str]":
        """Run a container of the busybox image, whatever comes of it."""
        return self.try_ctr(*self.run_words(*options, id), *command, **more)

    def tasks(self) -> dict[str, str]:
        """Return task -> status."""
        lines = self.ctr("task", "ls").splitlines()[1:]
        return {line.split()[0]: line.split()[2] for line in lines}

    def pid(self, id: str, namespace: str = "default") -> int:
        """Return the process id of a task: that of its QEMU."""
        lines = self.ctr("--namespace", namespace, "task", "ls").splitlines()[1:]
        return next(int(line.split()[1]) for line in lines if line.split()[0] == id)

    def pid_of_pod(self, id: str) -> int:
        """Return the process id of the QEMU of a pod."""
        lines = self.ctr("--namespace", "k8s.io", "task", "ls").splitlines()[1:]
        return next(int(line.split()[1]) for line in lines if line.split()[0] == id)

    def shim_of(self, pid: int) -> int:
        """Return the shim that has started the QEMU `pid`."""
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    def crictl_argv(self, *words: object) -> list[str]:
        """A command line of CRI's client."""
        return [str(crictl()), "--config", "/dev/null", "-r", f"unix://{self.folder}/c.sock", "-t", "120s", *map(str, words)]

    def crictl(self, *words: object, **options: Any) -> str:
        """Run a command of CRI's client that succeeds. Return its output."""
        done = _text_of(self.crictl_argv(*words), **options)
        if STARTING in done.stderr:  # the daemon answers other clients sooner
            eventually(lambda: STARTING not in _text_of(self.crictl_argv("version")).stderr)
            done = _text_of(self.crictl_argv(*words), **options)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr, self.log.read_text()[-4000:])
        return done.stdout

    def end_all(self) -> None:
        """Remove every container of the client's namespace."""
        for task in self.tasks():
            self.try_ctr("task", "kill", "--signal", "KILL", task)
            self.try_ctr("task", "rm", "--force", task)
        for container in self.ctr("container", "ls", "--quiet").split():
            self.ctr("container", "rm", container)


def _text_of(argv: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program, with no input if `options` have none."""
    settings: dict[str, Any] = {"timeout": SECONDS, **({} if "input" in options else {"stdin": subprocess.DEVNULL}), **options}
    return subprocess.run(argv, capture_output=True, text=True, check=False, **settings)


def leftovers(node: Node) -> set[str]:
    """What there is now of a node: mounts, folders of VMs, sockets and control groups of its shims, processes that name it."""
    folder = node.folder
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = {f"mount {mount}" for mount in mounts if mount.startswith(f"{folder}/")}
    found |= {f"vm {path}" for path in (folder / "vms").glob("*/*")}
    for namespace, id in node.groups:
        path = socket_path("", Arguments(namespace=namespace, address=f"{folder}/c.sock"), id)
        found |= {f"socket of {id}"} if path.exists() else set()
        found |= {f"group {group}" for group in Path("/sys/fs/cgroup").glob(f"*/*/{id}")}
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == node.daemon_pid:
            continue
        try:
            if os.fsencode(folder) in (process / "cmdline").read_bytes() + os.fsencode(os.readlink(process / "cwd")):
                found.add(f"process {process.name} {(process / 'cmdline').read_bytes()[:100]!r}")
        except OSError:  # it has ended, or is not to be looked at, as the kernel's threads
            continue
    return found


def remaining(node: Node, before: set[str]) -> set[str]:
    """Return what there is more than `before`, once what is ending has had the time to."""
    poll(lambda: not leftovers(node) - before, 20, every=0.2)
    return leftovers(node) - before


@contextmanager
def unchanged(node: Node) -> Iterator[Node]:
    """Context manager: a node in which a test makes containers. Afterwards there is nothing more than before."""
    before = leftovers(node)
    yield node
    node.end_all()
    assert remaining(node, before) == set()


def _groups(name: str) -> list[Path]:
    """Return the control groups of this name, one in each hierarchy."""
    return list(Path("/sys/fs/cgroup").glob(f"*/{name}"))


@contextmanager
def running_node(containerd: Containerd | None = None, **options: Any) -> Iterator[Node]:
    """Context manager: a node in a new folder, and nothing of it afterwards. `containerd` is Debian 12's by default."""
    folder = Path(mkdtemp(prefix="ink-", dir="/run"))
    earlier = {*_groups("default"), *_groups("k8s.io")}
    node = Node(folder, containerd or of_debian_12(), **options)
    try:
        node.up()
        yield node
    finally:
        node.stop()
        for bridge in (node.bridge, f"{node.bridge}b"):
            subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)
    assert remaining(node, set()) == set()
    for group in {*_groups(folder.name), *_groups("default")} - earlier:
        group.rmdir()  # kubelet would have made and removed the first; runtimes leave that of ctr's namespace
    for group in {*_groups("k8s.io")} - earlier:
        with contextlib.suppress(OSError):  # another node may have pods there
            group.rmdir()
    shutil.rmtree(folder)
