"""What `kata install` lays out, used by Kata's shim: with only that changed which a machine without KVM needs."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.node import rust_virtiofsd
from innkeeper.kata import Layout, install, uninstall
from tests.interop.configurations import changed
from tests.interop.node import HARNESS, Node
from tests.interop.test_shim import pytestmark as pytestmark
from tests.vm.guest import artifacts

STUB = Path(__file__).with_name("cloud_hypervisor.py")
EMULATION = {
    "kernel_params": 'kernel_params = "agent.hotplug_timeout=30"\nmachine_accelerators = "accel=tcg"\ndisable_vhost_net = true',
    "default_maxvcpus": "default_maxvcpus = 1",
    "dial_timeout": "dial_timeout = 300",
    "create_container_timeout": "create_container_timeout = 600",
    "static_sandbox_resource_mgmt": "static_sandbox_resource_mgmt = true",
}
"""Key -> its line. Memory that is plugged in cannot be shared with vhost-user's processes, which stand in for vhost-vsock."""


@pytest.fixture(scope="module")
def layout(node: Node) -> Iterator[Layout]:
    stub = node.folder / "cloud-hypervisor"
    stub.write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} {node.folder}/asked.json "$@"\n')
    stub.chmod(0o755)
    layout = Layout.of(node.folder / "installed", HARNESS.parent / "qemu-tcg", rust_virtiofsd(), stub)
    install(layout, artifacts())
    yield layout
    assert uninstall(layout.prefix) == []
    assert not layout.prefix.exists()


@pytest.mark.parametrize(("handler", "root"), [("innkeeper", "root=/dev/vda1"), ("innkeeper-initrd", "")])
def test_the_shim_takes_the_installed_configuration(node: Node, layout: Layout, handler: str, root: str) -> None:
    configuration = changed(layout.configurations[handler], node.folder / "emulated.toml", EMULATION)
    done = node.run(handler, "sh", "-c", "uname -r; cat /proc/cmdline", configuration=configuration)
    release, _, words = done.stdout.partition("\n")
    assert release.endswith("-innkeeper"), done.stderr
    assert [word for word in words.split() if word.startswith("root=")] == root.split()


def test_what_the_shim_would_ask_of_cloud_hypervisor(node: Node, layout: Layout) -> None:
    """There is no KVM for it here, so this is as far as it goes: the configuration is taken, and this machine is asked for."""
    configuration = layout.configurations["innkeeper-clh"]
    assert node.run("clh", "true", configuration=configuration).returncode != 0
    asked = json.loads((node.folder / "asked.json").read_text())
    assert [(disk["path"], disk["readonly"]) for disk in asked["disks"]] == [(str(layout.prefix / "share/innkeeper.img"), True)]
    assert asked["payload"]["kernel"] == str(layout.prefix / "share/vmlinux")
    assert {"root=/dev/vda1", "rootflags=ro", "rootfstype=erofs"} <= set(asked["payload"]["cmdline"].split())
    assert [share["tag"] for share in asked["fs"]] == ["kataShared"]
    assert "pmem" not in asked


def test_the_image_takes_no_more_of_the_node_than_it_has_content(layout: Layout) -> None:
    image = layout.prefix / "share/innkeeper.img"
    assert image.stat().st_blocks * 512 < image.stat().st_size / 4
    assert image.stat().st_size == artifacts().disk.stat().st_size
