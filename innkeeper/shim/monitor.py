"""Changes of a running VM: its disks, and threads of QEMU that stand for its containers."""

import threading
from pathlib import Path
from typing import Any

from innkeeper.vm import Disk, VirtualMachine


class Monitor:
    """QEMU's monitor, which has one client: there is one command at a time."""

    def __init__(self, vm: VirtualMachine) -> None:
        self._vm = vm
        self._lock = threading.Lock()

    def plug(self, path: Path, *, read_only: bool) -> str:
        """Give the VM a disk, and return its SCSI address for the agent. Raises InnkeeperError."""
        assert self._vm.scsi is not None
        with self._lock:
            return self._vm.scsi.plug(Disk(path, read_only=read_only))

    def unplug(self, address: str) -> None:
        """Take a disk out, which the guest does not use any more. Raises InnkeeperError."""
        assert self._vm.scsi is not None
        with self._lock:
            self._vm.scsi.unplug(address)

    def add_thread(self, name: str) -> int:
        """Start a thread in QEMU that does nothing, and return its id. Raises InnkeeperError.

        It stands for a container of a pod. A namespace of a container is joined by a process id
        alone: CRI asks for the pid namespace of one as /proc/PID/ns/pid, and QEMU's own id would be
        that of all. As that, it is in the pod's network namespace, and to kill it is to end the VM.
        """
        assert self._vm.qmp is not None
        with self._lock:
            self._vm.qmp.execute("object-add", {"qom-type": "iothread", "id": name})
            threads: list[dict[str, Any]] = self._vm.qmp.execute("query-iothreads")
        return next(int(thread["thread-id"]) for thread in threads if thread["id"] == name)

    def remove_thread(self, name: str) -> None:
        """End a thread of `add_thread`. Raises InnkeeperError, also if the VM has ended."""
        with self._lock:
            if self._vm.qmp is not None:  # not once the VM has ended
                self._vm.qmp.execute("object-del", {"id": name})
