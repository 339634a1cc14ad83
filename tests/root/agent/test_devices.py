"""Devices and hooks of the guest in containers, on an agent outside of a guest."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.client import RpcError
from innkeeper.wire.pb import agent_pb2 as pb
from tests.needs import needs
from tests.root.agent_helpers import NativeAgent, native_agent, shim_document

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "loop", "module:prctl", "module:pyseccomp")]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[NativeAgent]:
    with native_agent(tmp_path) as agent:
        yield agent


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    image = tmp_path / "disk.img"
    image.write_bytes(b"first sector".ljust(1 << 20, b"\0"))
    node = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    yield node
    subprocess.run(["losetup", "--detach", node], check=True)


def test_a_disk_by_the_guests_number(guest: NativeAgent, disk: str, container_root: Path) -> None:
    """The node has the guest's number and can be used; another disk's cannot, though the container may make a node for it."""
    spec = shim_document(container_root, "sh", "-c", "head -c 12 /dev/xvda; echo; ls -l /dev/xvda; mknod /dev/b b 7 250 && cat /dev/b")
    spec["linux"]["devices"] = [{"path": "/dev/xvda", "type": "b", "major": 253, "minor": 99, "fileMode": 0o600, "uid": 0, "gid": 0}]
    guest.sandbox()
    result = guest.run("c1", spec, devices=[pb.Device(type="mmioblk", id=disk, vm_path=disk, container_path="/dev/xvda")])
    first, listed = result.stdout.splitlines()
    assert first == "first sector"
    status = Path(disk).stat()
    assert f"{status.st_rdev >> 8}, " in listed.replace("   ", " ")
    assert "Operation not permitted" in result.stderr
    with pytest.raises(RpcError, match="Missing devices in OCI spec: /dev/none"):
        guest.create("c2", spec, devices=[pb.Device(type="mmioblk", vm_path=disk, container_path="/dev/none")])


def test_hooks_of_the_guest(guest: NativeAgent, container_root: Path, tmp_path: Path) -> None:
    """Each runs at its point, with its name and kind as arguments and the container's state as input."""
    told = tmp_path / "told"
    for kind in ("prestart", "poststart", "poststop"):
        (tmp_path / "hooks" / kind).mkdir(parents=True)
        hook = tmp_path / "hooks" / kind / "10-tell"
        hook.write_text(f'#!/bin/sh\necho "$1 $(cat | grep -o \'"status": *"[a-z]*"\')" >> {told}\n')
        hook.chmod(0o755)
    guest.sandbox(guest_hook_path=str(tmp_path / "hooks"))
    guest.run("c1", shim_document(container_root, "true"))
    lines = [line.replace(" ", "") for line in told.read_text().splitlines()]
    assert lines == ['prestart"status":"created"', 'poststart"status":"running"', 'poststop"status":"stopped"']


def test_a_failing_hook_fails_the_call(guest: NativeAgent, container_root: Path, tmp_path: Path) -> None:
    (tmp_path / "hooks/prestart").mkdir(parents=True)
    hook = tmp_path / "hooks/prestart/deny"
    hook.write_text("#!/bin/sh\necho not today\nexit 3\n")
    hook.chmod(0o755)
    guest.sandbox(guest_hook_path=str(tmp_path / "hooks"))
    with pytest.raises(RpcError, match=r"ended with status 3: not today"):
        guest.create("c1", shim_document(container_root, "true"))
