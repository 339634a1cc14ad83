"""One VM of the pool: a clone that has run a throw-away container, waits, and is claimed once."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from innkeeper.client import Agent, connect
from innkeeper.engine import clones, warm_up
from innkeeper.errors import InnkeeperError
from innkeeper.vm import AGENT_PORT, CloneableVm, HostPrograms, VmConfig, process_info, registry, template
from innkeeper.vm.pooled import Claim

SHARED_STATE = ("pid", "address", "accel", "machine_type", "memory_mib", "cpus", "command")
"""What the record of the claimer's container has of this VM's state."""
PREPARE_SECONDS = 300.0
"""Seconds that each step of preparing may take.

At the lowest priority a busy host leaves it no time.
"""


class WarmVm:
    """A VM that belongs to the pool. It is prepared, then claimed or not, then closed."""

    def __init__(self, config: VmConfig, host: HostPrograms) -> None:
        self._entry = registry.create()
        try:
            self._vm = CloneableVm(replace(config, disks=warm_up.disks(self._entry.folder)), host, self._entry)
        except BaseException:
            self._entry.release()
            raise
        self._resumed = 0

    @property
    def pid(self) -> int:
        """QEMU's process id, once it is prepared."""
        return int(self._entry.get("pid"))

    def prepare(self, key: str) -> None:
        """Start from the template, and run the throw-away container, with the lowest priority.

        Raises InnkeeperError, RpcError and OSError.
        """
        with template.found(key) as known:
            if known is None:
                raise InnkeeperError("the template was removed")
            self._vm.template = known
            self._vm.start()
            process_info.set_priority(self.pid, process_info.LOWEST)
            with clones.resumed(self._vm, PREPARE_SECONDS) as client:
                self._resumed = time.time_ns()  # no less than the guest's generation
                warm_up.use_everything(Agent(client, PREPARE_SECONDS))
        process_info.set_priority(self.pid, process_info.USUAL)

    def claim(self, claim: Claim) -> dict[str, Any]:
        """Make the VM the claimer's: disks, ports, identity. Return the answer to the claim.

        Raises InnkeeperError, RpcError and OSError, and the VM is of no use then.
        """
        self._vm.exchange([Path(path) for path in claim.disks], claim.rules)
        with connect(self._vm.address(AGENT_PORT), timeout=clones.READY_SECONDS) as client:
            generation = clones.identify(self._vm, Agent(client, clones.READY_SECONDS), above=self._resumed)
        state = {name: self._entry.get(name) for name in SHARED_STATE}
        return {"folder": str(self._vm.folder), "generation": generation, "state": state}

    def failure(self) -> str | None:
        """Return why the VM has ended, or None."""
        failure = self._vm.failure()
        return None if failure is None else failure.message

    def memory(self) -> int:
        """Return the bytes of memory that it takes, with its part of what clones share."""
        try:
            return process_info.memory(self.pid)
        except (OSError, TypeError):
            return 0  # it has ended

    def kill(self) -> None:
        """End QEMU, from any thread. The thread that uses the VM notices."""
        self._vm.kill()

    def close(self) -> None:
        """End the VM and remove everything of it."""
        self._vm.close()
