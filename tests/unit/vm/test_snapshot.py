"""Which VMs can be saved while a container runs in them."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.vm import CloneableVm, HostPrograms, Share, VirtualMachine, VmConfig, registry, snapshot
from innkeeper.vm.pooled import PooledVm
from innkeeper.vm.virtio_serial import VirtioSerial
from innkeeper.vm.vsock import Backend

HOST = HostPrograms(qemu=Path("/qemu"), setpriv=Path("/setpriv"))


@pytest.fixture
def config(tmp_path: Path) -> VmConfig:
    for name in ("kernel", "root"):
        (tmp_path / name).write_text(name)
    return VmConfig(kernel=tmp_path / "kernel", root=tmp_path / "root")


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[VirtioSerial]:
    opened = VirtioSerial(tmp_path)
    yield opened
    opened.close()


def vm_of(config: VmConfig, channel: object, kind: type[VirtualMachine] = VirtualMachine) -> VirtualMachine:
    vm = kind(config, HOST, registry.outside("id", config.root.parent))
    vm._vsock = cast(Backend, channel)
    return vm


@pytest.mark.parametrize("kind", [VirtualMachine, CloneableVm])
def test_a_vm_with_the_channel_of_clones_can_be_saved(config: VmConfig, channel: VirtioSerial, kind: type[VirtualMachine]) -> None:
    """Also one that booted, where that is its channel."""
    if kind is CloneableVm:
        config = replace(config, cloneable=True, gives_memory_back=False)
    vm = vm_of(config, channel, kind)
    assert snapshot.prepare(vm) is vm


def test_a_share_is_refused(config: VmConfig, channel: VirtioSerial, tmp_path: Path) -> None:
    vm = vm_of(replace(config, shares=(Share.of("data", tmp_path),)), channel)
    with pytest.raises(InnkeeperError, match="a container with -v cannot be saved"):
        snapshot.prepare(vm)


def test_a_guest_for_aarch64_is_refused(config: VmConfig, channel: VirtioSerial) -> None:
    vm = vm_of(replace(config, machine_type="virt", accel="tcg"), channel)
    with pytest.raises(InnkeeperError, match="a guest for aarch64 cannot be saved") as refused:
        snapshot.prepare(vm)
    assert refused.value.hint == "run it with a guest for x86_64"


def test_a_vsock_device_is_refused(config: VmConfig) -> None:
    with pytest.raises(InnkeeperError, match="a VM with a vsock device cannot be saved") as refused:
        snapshot.prepare(vm_of(config, object()))
    assert refused.value.hint == "start it from a template: build.py run --start template"


def test_a_vm_of_the_pool_is_refused(config: VmConfig) -> None:
    entry: Any = registry.outside("id", config.root.parent)
    with socket.socket() as lease, pytest.raises(InnkeeperError, match="a VM of the pool cannot be saved") as refused:
        snapshot.prepare(PooledVm(lease, "key", config, entry, "unix:///nowhere"))
    assert refused.value.hint == "start it from a template: build.py run --start template"
