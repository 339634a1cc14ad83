"""A VM whose state can be saved, and that can start from saved state instead of booting."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from innkeeper.files import data_ranges
from innkeeper.vm import failures, network, qemu, saved_state, template
from innkeeper.vm.config import Forward, HostPrograms, VmConfig
from innkeeper.vm.qmp import Qmp, QmpError
from innkeeper.vm.registry import Entry
from innkeeper.vm.template import Template
from innkeeper.vm.virtio_serial import VirtioSerial
from innkeeper.vm.vm import VirtualMachine
from innkeeper.vm.vsock import Backend

SAVE_SECONDS = 30.0
"""Seconds that QEMU may take to end once its state is saved."""
UNPLUG_SECONDS = 60.0
"""Seconds that a guest may take to let a device go. The slot alone waits five."""
BLOCK = 4 << 20
"""The largest free block of the guest's kernel, in bytes (agent/service/wipe.py counts in them)."""
RAM = "ram"
"""The file of the guest's memory, in the folder of a VM that is going to be saved."""


class CloneableVm(VirtualMachine):
    """A VM of a `cloneable` configuration. With a `template` it is a clone, else it boots.

    A template is shared by many clones. Nothing of a clone is written to it.
    """

    def __init__(self, config: VmConfig, host: HostPrograms, entry: Entry | None = None, template: Template | None = None) -> None:
        super().__init__(config, host, entry)
        self.template = template

    def template_key(self) -> str:
        """Return the key of the template that this VM can start from."""
        self._choose()
        return self.state_key()

    def _open_channel(self) -> Backend:
        return VirtioSerial(self.folder, resume=self.template is not None)

    def _launch(self, backend: Backend | type[Backend], forwards: tuple[Forward, ...]) -> qemu.Launch:
        return replace(super()._launch(backend, forwards), ram=RAM, generation=qemu.new_generation())

    def _start_qemu(self, launch: qemu.Launch, fds: tuple[int, ...] = ()) -> list[str]:
        assert self.qmp is not None
        with ExitStack() as inherited:
            if self.template is None:
                self._make_ram()
            else:
                launch, fds = self._prepare_load(self.template, launch, fds, inherited)
            command = super()._start_qemu(launch, fds)
        if self.template is not None:
            self._load(self.qmp)
        return command

    def _make_ram(self) -> None:
        """Make the file of the memory, which nobody else may read."""
        fd = os.open(self.folder / RAM, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, self.config.memory_mib << 20)
        finally:
            os.close(fd)

    def _prepare_load(
        self, template: Template, launch: qemu.Launch, fds: tuple[int, ...], inherited: ExitStack
    ) -> tuple[qemu.Launch, tuple[int, ...]]:
        """Return `launch` and `fds` with the state and the memory of `template`.

        virtiofsd maps the guest's memory, so with shares it is a copy, which takes some hundredths
        of a second. Without, the file is mapped privately: pages that no clone changes are shared.
        """
        assert self.qmp is not None
        state = os.open(template.state, os.O_RDONLY | os.O_CLOEXEC)
        inherited.callback(os.close, state)
        saved_state.start_loading(self.qmp, state)
        if not self.config.shares:
            return replace(launch, ram=str(template.ram), ram_private=True, incoming=True), (*fds, state)
        memory = saved_state.copy_memory(template.ram)
        inherited.callback(os.close, memory)
        return replace(launch, ram=f"/proc/self/fd/{memory}", incoming=True), (*fds, state, memory)

    def _load(self, qmp: Qmp) -> None:
        """Wait for the state, fit in what differs from the template, and let the guest run.

        Raises InnkeeperError.
        """
        try:
            saved_state.finish_loading(qmp)
            for index, disk in enumerate(self.config.disks, start=1):
                if not disk.read_only:
                    # The guest knows the size of the template's disk. QEMU cannot tell it that of a
                    # read-only one, whose file system has a size of its own.
                    qmp.execute("block_resize", {"node-name": f"disk{index}", "size": disk.path.stat().st_size})
            for index, share in enumerate(self.config.shares):
                qmp.execute("device_add", qemu.share_device(index, share.tag))
            for tap in self.config.taps:
                qmp.execute("device_add", qemu.card_device(tap))
            saved_state.resume(qmp)
        except QmpError as error:
            raise failures.of_load(error, self.qemu_log) from error

    def exchange(self, paths: Sequence[Path], rules: Sequence[Forward]) -> None:
        """Put other files behind the disks of a running VM, and forward ports to it.

        No disk may be in use in the guest: its kernel drops what it has cached of a disk when it is
        closed for the last time. `rules` are in IPv4 (`network.resolve_ports`). Raises
        InnkeeperError.
        """
        assert self.qmp is not None, "start() comes first"
        disks = tuple(replace(disk, path=path) for disk, path in zip(self.config.disks, paths, strict=True))
        for index, disk in enumerate(disks, start=1):
            name = f"exchanged{index}"
            self.qmp.execute("blockdev-add", qemu.file_node(name, disk))
            self.qmp.execute("blockdev-reopen", {"options": [qemu.disk_node(index, disk, name)]})
            if not disk.read_only:
                self.qmp.execute("block_resize", {"node-name": f"disk{index}", "size": disk.path.stat().st_size})
        for forward in rules:
            complaint = self.qmp.execute("human-monitor-command", {"command-line": f"hostfwd_add net {network.rule(forward)}"})
            if complaint:
                raise QmpError(f"QEMU forwards no port: {complaint.strip()}")
        self.config = replace(self.config, disks=disks)

    def take_free_pages(self) -> None:
        """Plug in a device by which the guest reports free pages. QEMU makes holes of them.

        No clone may have it: the file is that of all clones. Raises QmpError.
        """
        assert self.qmp is not None, "start() comes first"
        self.qmp.execute("device_add", qemu.reporting_device())

    def used_blocks(self) -> int:
        """Return in how many blocks the guest has used memory: what it never used is a hole.

        Raises OSError.
        """
        with open(self.folder / RAM, "rb") as ram:
            return len({block for start, end in data_ranges(ram.fileno()) for block in range(start // BLOCK, -(-end // BLOCK))})

    def leave_free_pages(self) -> None:
        """Unplug that device. Raises QmpError if the guest does not let it go."""
        assert self.qmp is not None, "start() comes first"
        name = qemu.reporting_device()["id"]
        self.qmp.execute("device_del", {"id": name})
        while self.qmp.event("DEVICE_DELETED", seconds=UNPLUG_SECONDS)["data"].get("device") != name:
            pass  # a part of it

    def publish(self, key: str) -> None:
        """Save the state as the template `key`, which ends the VM.

        Raises InnkeeperError and OSError.
        """
        assert self.qmp is not None and isinstance(self.channel, VirtioSerial), "start() comes first"
        state = self.folder / "state"
        self.channel.quiesce()
        saved_state.save(self.qmp, state)
        self._stopping = True
        self.qmp.execute("quit")
        self.wait(SAVE_SECONDS)
        with open(self.folder / RAM, "r+b") as ram:
            saved_state.punch_zeros(ram.fileno())
            os.fsync(ram.fileno())
        template.publish(key, self.folder / RAM, state, self.config.kernel)
