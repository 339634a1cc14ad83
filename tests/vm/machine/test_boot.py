"""A guest boots, answers, can be had twice at a time, on each machine type, and ends."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.engine.host import virtual_machine
from innkeeper.vm import Disk, Forward, Share, child_processes, registry
from tests.vm.guest import vm_config

pytestmark = pytest.mark.vm

TIMEOUT = 120
"""Seconds: far more than a start takes, for machines that are slow or busy."""


@pytest.fixture(autouse=True)
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry of the test's own, below a folder too long for a socket's address; nothing may be left in it."""
    root = tmp_path / ("long" * 25) / "machines"
    monkeypatch.setattr(registry, "vms_root", lambda: root)
    yield root
    assert [p.name for p in root.iterdir() if p.name != ".lock"] == []
    assert everything_below(root) == []


def everything_below(root: Path) -> list[str]:
    """Processes that stand in, or name, a folder below `root`."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            folder = os.readlink(f"/proc/{name}/cwd")
        except OSError:
            continue
        if folder.startswith(str(root)) or os.fsencode(root) in command:
            found.append(f"{name} {command!r}")
    return found


@pytest.mark.parametrize("vsock", [True, False], ids=["vsock", "virtio-serial"])
@pytest.mark.parametrize("machine_type", ["q35", "microvm"])
def test_the_agent_answers(machine_type: str, vsock: bool) -> None:
    """By each channel, where the kernel's vsock does not take precedence."""
    with virtual_machine(vm_config(machine_type=machine_type), vsock=vsock) as vm:
        vm.start()
        vm.wait_ready(TIMEOUT)
        assert vm.poll() is None
        assert vm.failure() is None
        state = json.loads((vm.folder / "state.json").read_text())
        assert (state["status"], state["machine_type"], state["pid"] > 0) == ("running", machine_type, True)
        assert vm.kill() is not None
        assert vm.poll() is not None
        assert vm.failure() is None, "an end that was asked for is no failure"


def test_two_at_once_do_not_meet() -> None:
    with virtual_machine(vm_config()) as first, virtual_machine(vm_config()) as second:
        first.start()
        second.start()
        first.wait_ready(TIMEOUT)
        second.wait_ready(TIMEOUT)
        assert first.address(1024) != second.address(1024)
        assert len(registry.list_vms()) == 2
        first.kill()
        second.wait_ready(TIMEOUT)


def test_every_kind_of_device_at_once(tmp_path: Path) -> None:
    """Disks, shares of a folder and of a file, forwards of both kinds: on q35, because microvm has too few slots."""
    scratch = tmp_path / "scratch"
    with scratch.open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "one file").write_text("content")
    spec = vm_config(
        disks=(Disk(vm_config().root, read_only=True), Disk(scratch, volatile=True)),
        shares=(Share.of("folder", tmp_path, read_only=True), Share.of("file", tmp_path / "one file"), Share.of("third", tmp_path)),
        forwards=(Forward("tcp", "127.0.0.1", 0, 80), Forward("udp", "127.0.0.1", 0, 53)),
    )
    with virtual_machine(spec, vsock=True) as vm:
        vm.start()
        assert vm.machine_type == "q35"
        vm.wait_ready(TIMEOUT)
        tcp = vm.forwards[0]
        with socket.create_connection(("127.0.0.1", tcp.host_port), timeout=10):
            pass
        assert len(child_processes.orphans(vm.folder)) >= 2


def test_the_folder_that_is_kept_has_the_console() -> None:
    entry = registry.create("kept")
    entry.update(keep=True)
    with virtual_machine(vm_config(quiet=False), entry) as vm:
        vm.start()
        vm.wait_ready(TIMEOUT)
        assert next(one for one in registry.list_vms() if one.name == "kept").address(7).endswith(":7")
    (record,) = (one for one in registry.list_vms() if one.name == "kept")
    assert record.state["status"] == "ended"
    assert "Linux version" in record.console.read_text(errors="replace")
    assert not list(record.folder.glob("*.sock*"))
    registry.remove(record)
