"""A VM with a container in it: save it, and start other VMs from what was saved.

    <folder>/state        memory and devices, as QEMU writes them
    <folder>/scratch.img  the disk that the guest writes to

Unlike a template, a snapshot has its memory in the state: that of a clone is in no file. Nothing of
a share can be saved, because virtiofsd keeps the open files.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.paths import program_name
from innkeeper.vm import failures, qemu, saved_state
from innkeeper.vm.clone import CloneableVm
from innkeeper.vm.config import VIRT, Disk, Forward, HostPrograms, VmConfig
from innkeeper.vm.pooled import PooledVm
from innkeeper.vm.qmp import QmpError
from innkeeper.vm.registry import Entry
from innkeeper.vm.virtio_serial import VirtioSerial
from innkeeper.vm.vm import VirtualMachine
from innkeeper.vm.vsock import Backend

STATE, SCRATCH = "state", "scratch.img"
PATHS = ("kernel", "root", "initrd")
LEFT_OUT = ("disks", "shares", "forwards")
"""Fields of the configuration that each VM has of its own, but for the image."""


def check(vm: VirtualMachine | PooledVm) -> VirtualMachine:
    """Return the VM if it can be saved. Raises InnkeeperError."""
    if not isinstance(vm, VirtualMachine):
        raise InnkeeperError(
            "a VM of the pool cannot be saved: the pool owns it", hint=f"start it from a template: {program_name()} run --start template"
        )
    if vm.config.shares:
        raise InnkeeperError("a container with -v cannot be saved: its files are open on the host", hint="run it without -v")
    if vm.config.machine_type == VIRT:
        raise InnkeeperError("a guest for aarch64 cannot be saved", hint="run it with a guest for x86_64")
    if not isinstance(vm.channel, VirtioSerial):
        raise InnkeeperError(
            "a VM with a vsock device cannot be saved", hint=f"start it from a template: {program_name()} run --start template"
        )
    return vm


def prepare(vm: VirtualMachine | PooledVm) -> VirtualMachine:
    """Do what takes long while the VM still runs, and return it.

    Raises InnkeeperError if it cannot be saved.
    """
    vm = check(vm)
    if isinstance(vm, CloneableVm) and vm.template is not None:
        saved_state.read_ahead(vm.template.ram)
    return vm


def save(vm: VirtualMachine, folder: Path) -> None:
    """Save the VM into `folder`. It stands still meanwhile, and goes on whatever happens.

    The container should be frozen: then no system call is cut in two. Raises InnkeeperError and
    OSError.
    """
    assert isinstance(vm.channel, VirtioSerial) and vm.qmp is not None
    vm.channel.quiesce()
    try:
        vm.qmp.execute("stop")
        try:
            saved_state.save_with_memory(vm.qmp, folder / STATE)
            saved_state.copy_disk(vm.config.disks[1].path, folder / SCRATCH)
        finally:
            saved_state.go_on(vm.qmp)
    finally:
        vm.channel.resume_sending()


def document(vm: VirtualMachine) -> dict[str, Any]:
    """Return what a VM that starts from the snapshot needs to know, for JSON."""
    config = replace(vm.config, accel=vm.accel, machine_type=vm.machine_type)
    fields = {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items() if name not in LEFT_OUT}
    return {"key": vm.state_key(), "image": str(config.disks[0].path), "config": fields}


def configuration(document: dict[str, Any], scratch: Path, forwards: tuple[Forward, ...]) -> VmConfig:
    """Return the configuration of a VM that starts from a snapshot. Raises InnkeeperError.

    That is the case if a file is gone that the state depends on.
    """
    fields = dict(document["config"])
    fields |= {name: Path(fields[name]) for name in PATHS if fields[name] is not None}
    fields["cmdline"] = tuple(fields["cmdline"])
    disks = (Disk(Path(document["image"]), read_only=True), Disk(scratch, volatile=True))
    return VmConfig(**fields, disks=disks, forwards=forwards)


class RestoredVm(VirtualMachine):
    """A VM that starts from a snapshot: everything goes on where it was saved."""

    def __init__(self, config: VmConfig, host: HostPrograms, entry: Entry, state: Path) -> None:
        super().__init__(config, host, entry)
        self._state = state

    def check_key(self, key: str) -> None:
        """Raise InnkeeperError if the state does not fit this host's QEMU, kernel and root."""
        self._choose()
        if self.state_key() != key:
            raise InnkeeperError("the snapshot is of another QEMU, kernel or root than this host has now", hint="make a new one")

    def _open_channel(self) -> Backend:
        return VirtioSerial(self.folder, resume=True)

    def _launch(self, backend: Backend | type[Backend], forwards: tuple[Forward, ...]) -> qemu.Launch:
        generation = qemu.new_generation() if self.config.cloneable else ""
        return replace(super()._launch(backend, forwards), incoming=True, generation=generation)

    def _start_qemu(self, launch: qemu.Launch, fds: tuple[int, ...] = ()) -> list[str]:
        assert self.qmp is not None
        with self._state.open("rb") as state:
            saved_state.start_loading(self.qmp, state.fileno(), with_memory=True)
            command = super()._start_qemu(launch, (*fds, state.fileno()))
        try:
            saved_state.finish_loading(self.qmp, with_memory=True)
            saved_state.resume(self.qmp)
        except QmpError as error:
            raise failures.of_load(error, self.qemu_log) from error
        return command
