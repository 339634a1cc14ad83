"""A container that containerd knows: its processes, and what it has on the host."""

import threading
import time
from typing import Any

from innkeeper.shim import events, spec, stats
from innkeeper.shim.errors import not_found, unimplemented, wrong_state
from innkeeper.shim.events import Publisher
from innkeeper.shim.hooks import Hooks
from innkeeper.shim.machine import Machine
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.process import CREATED, LOST, PAUSED, RUNNING, STOPPED, Exit, Process, Stdio
from innkeeper.shim.state import State


class Container:
    """A container. This one has nothing in the guest: it stands for a pod, and answers for its VM.

    `owns_machine`: the VM ends with it. `hold_stdin`: see `streams.Input`.
    """

    def __init__(
        self, request: pb.CreateTaskRequest, machine: Machine, publisher: Publisher, state: State, hooks: Hooks, *, owns_machine: bool
    ) -> None:
        self.id = request.id
        self.bundle = request.bundle
        self.machine = machine
        self.pid = machine.pid
        self.owns_machine = owns_machine
        self.state = state
        self._hooks = hooks
        self._publisher = publisher
        self.stdio = Stdio(request.stdin, request.stdout, request.stderr, request.terminal, id=request.id, namespace=publisher.namespace)
        self.init = Process(self.stdio, lambda process: self._exited(process, ""))
        self.paused = False
        self._execs: dict[str, Process] = {}

    def attend(self) -> None:
        """Begin to wait for the exit. containerd knows of the container."""
        self.machine.on_end(lambda: self.init.ended(LOST))

    def process(self, exec_id: str) -> Process:
        """Return the first process, or one that was added. Raises CallError."""
        if not exec_id:
            return self.init
        try:
            return self._execs[exec_id]
        except KeyError:
            raise not_found(f"process {exec_id} of container {self.id} not found") from None

    def status(self, exec_id: str) -> int:
        """Return the status of a process, as one of containerd's numbers."""
        status = self.process(exec_id).status
        return PAUSED if status == RUNNING and self.paused else status

    def start(self, exec_id: str) -> None:
        """Start a process, and publish that. Raises CallError, RpcError and OSError."""
        process = self.process(exec_id)
        with process.order:
            process.start()
            if exec_id:
                self._publisher.publish(pb.TaskExecStarted(container_id=self.id, exec_id=exec_id, pid=self.pid))
            else:
                self._hooks.started(self.pid)
                self._publisher.publish(pb.TaskStart(container_id=self.id, pid=self.pid))

    def delete(self, exec_id: str) -> Exit:
        """Forget a process that has ended, or the container with its first one.

        Raises CallError.
        """
        process = self.process(exec_id)
        if process.status not in (CREATED, STOPPED):
            raise wrong_state(f"process {exec_id or self.id} is running")
        end = process.exit or Exit(0, time.time_ns())
        if exec_id:
            del self._execs[exec_id]
            return end
        self.remove()
        self._publisher.publish(
            pb.TaskDelete(container_id=self.id, pid=self.pid, exit_status=end.status, exited_at=events.timestamp(end.at), id=self.id)
        )
        return end

    def remove(self) -> None:
        """Remove all that the container has, in the guest and on the host."""
        if not self.owns_machine or self.machine.end():
            self._hooks.stopped()
            self.state.clear()

    def _exited(self, process: Process, exec_id: str) -> None:
        """Publish that a process has ended, and end the VM with the container that owns it.

        The first process exists from the creation on, the others from their start on.
        """
        end = process.exit
        if end is not None and (process.started or not exec_id):
            self._publisher.publish(
                pb.TaskExit(
                    container_id=self.id, id=exec_id or self.id, pid=self.pid, exit_status=end.status, exited_at=events.timestamp(end.at)
                )
            )
        if not exec_id and self.owns_machine:
            # Begun before containerd asks for the removal, which then waits for the rest.
            threading.Thread(target=self.machine.end, name="end of the VM", daemon=True).start()

    # what only a container in the guest can do

    def add_process(self, request: pb.ExecProcessRequest) -> None:
        """Add a process, to be started later. Raises CallError."""
        raise unimplemented("no process can be added to the container of a pod itself: nothing of it is in the guest")

    def set_paused(self, paused: bool) -> None:
        """Freeze the processes, or let them go on. Raises CallError and RpcError."""
        raise unimplemented("the container of a pod itself cannot be paused")

    def update(self, resources: dict[str, Any]) -> None:
        """Set other limits, for a pod as far as its VM can.

        Raises CallError, RpcError and InnkeeperError.
        """
        spec.check_pod_resources(resources)
        self.machine.check_fits(resources)
        self.machine.bind(self.id, resources)

    def stats(self) -> pb.Any:
        """Return statistics. Raises RpcError."""
        return stats.packed(pb.Metrics())
