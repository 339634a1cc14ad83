"""A guest with the devices that Kata's shim may give one, plugged before or later, and calls to its agent."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from innkeeper import programs
from innkeeper.client import Agent, connect
from innkeeper.dial import dial
from innkeeper.engine.host import virtual_machine
from innkeeper.vm import AGENT_PORT, VirtualMachine, qemu
from tests.eventually import eventually, retry
from tests.root.agent_helpers import Calls
from tests.root.container_helpers import busybox_root, document
from tests.vm.guest import vm_config

TIMEOUT = 300
"""Seconds: far more than anything takes, for machines that are slow or busy."""
MIB = 1 << 20
BRIDGE = "1d"
"""The slot of a bridge behind which disks and interfaces are plugged, as the shim's."""
SHARED = "/run/kata-containers/shared/containers"


class Monitor:
    """QEMU's machine protocol."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(60)
        self._sock.connect(str(path))
        self._file = self._sock.makefile("rw")
        self._file.readline()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: Any) -> Any:
        self._file.write(
            json.dumps({"execute": name, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}) + "\n"
        )
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "error" in answer:
                raise AssertionError(f"{name}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def close(self) -> None:
        self._file.close()
        self._sock.close()


class Guest(Calls):
    """A guest that runs."""

    def __init__(self, agent: Agent, vm: VirtualMachine, monitor: Monitor) -> None:
        super().__init__(agent)
        self.vm = vm
        self.lines: list[dict[str, str]] = []
        self.monitor = monitor

    def dial(self, port: int) -> socket.socket:
        """A connection to a port of the guest's."""
        return dial(self.vm.address(port), 60)

    def follow_log(self, port: int) -> None:
        """Collect in `lines` what comes from the log port."""
        # the agent opens it after it has answered its first call
        sock = retry(lambda: self.dial(port), ConnectionRefusedError, seconds=TIMEOUT)
        sock.settimeout(None)

        def follow() -> None:
            with suppress(OSError), sock, sock.makefile() as file:  # the guest's end is its end
                for line in file:
                    self.lines.append(json.loads(line))

        threading.Thread(target=follow, daemon=True).start()

    def logged(self, message: str, count: int = 1) -> list[dict[str, str]]:
        """The lines of this message, once there are `count`."""

        def found() -> list[dict[str, str]]:
            return [line for line in self.lines if line["msg"] == message]

        eventually(lambda: len(found()) >= count, lambda: f"{message!r} came {len(found())} times of {count}", TIMEOUT)
        return found()

    @contextmanager
    def dial_stream(self, port: int) -> Iterator[tuple[socket.socket, int]]:
        """A connection, and the number of our end as the guest sees it, which vhost-device-vsock does not tell."""
        before = len([line for line in self.lines if line["msg"] == "stream dialled"])
        with self.dial(port) as sock:
            yield sock, int(self.logged("stream dialled", before + 1)[-1]["port"])


@contextmanager
def guest_with(folder: Path, devices: list[str], cmdline: tuple[str, ...] = (), **spec: Any) -> Iterator[Guest]:
    """Boot a guest on q35 with QEMU's `devices` beside the usual ones. The monitor's socket lies in `folder`, which must be short."""
    original = qemu.arguments
    qmp = folder / "qmp"
    more = [
        "-qmp",
        f"unix:{qmp},server=on,wait=off",
        "-device",
        f"pci-bridge,id=bridge,bus=pcie.0,chassis_nr=9,shpc=on,addr=0x{BRIDGE}",
        *devices,
    ]
    with mock.patch.object(qemu, "arguments", lambda plan: [*original(plan), *more]):
        vm = virtual_machine(vm_config(machine_type="q35", cmdline=cmdline, **spec), vsock=True)
        with vm:
            vm.start()
            vm.wait_ready(TIMEOUT)
            monitor = Monitor(qmp)
            with connect(vm.address(AGENT_PORT), TIMEOUT) as client:
                yield Guest(Agent(client, TIMEOUT), vm, monitor)
            monitor.close()
            vm.kill()


def disk(name: str, path: Path, slot: int) -> list[str]:
    """A virtio disk in a slot of the root bus."""
    return [
        *("-blockdev", json.dumps({"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": str(path)}})),
        *("-device", f"virtio-blk-pci,drive={name},id=dev-{name},addr=0x{slot:x},disable-legacy=on"),
    ]


def empty(path: Path, mib: int) -> Path:
    """A sparse file."""
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    return path


def root_disk(path: Path) -> Path:
    """An ext4 with a busybox root in its folder `rootfs`, as a block snapshotter of containerd gives one."""
    files = path.parent / f"{path.name}-files"
    busybox_root(files / "rootfs")
    empty(path, 32)
    subprocess.run([programs.require("mke2fs"), "-q", "-F", "-t", "ext4", "-d", files, path], check=True)
    return path


def container(*args: str, root: str = f"{SHARED}/c1/rootfs", **linux: Any) -> dict[str, Any]:
    """A specification as the shim sends it."""
    spec = document(Path(root), *args)
    del spec["hostname"]
    spec["linux"] |= {"namespaces": [{"type": kind} for kind in ("ipc", "uts", "mount")], **linux}
    return spec


def with_mount(spec: Mapping[str, Any], destination: str, source: str) -> dict[str, Any]:
    """The specification with one more bind mount."""
    added = {"destination": destination, "type": "bind", "source": source, "options": ["rbind"]}
    return {**spec, "mounts": [*spec["mounts"], added]}
