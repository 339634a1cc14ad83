"""A container that containerd knows: its first process, those added to it, and what it has on the host."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from innkeeper.client import RpcError
from innkeeper.image.proto import process_to_proto, resources_to_proto, to_proto
from innkeeper.shim import events, log, mounts, spec, stats
from innkeeper.shim.errors import already_exists, not_found, unimplemented, wrong_state
from innkeeper.shim.events import Publisher
from innkeeper.shim.guest_process import ExecProcess, InitProcess
from innkeeper.shim.machine import Machine
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.process import CREATED, PAUSED, RUNNING, STOPPED, Exit, Process, Stdio
from innkeeper.shim.state import State
from innkeeper.wire.pb import agent_pb2

STATS_SECONDS = 1.0
"""Seconds for which figures are good: containerd 2 asks once a second, and an answer costs the guest time."""


class Container:
    """A container. This one has nothing in the guest: it stands for a pod, and answers for its VM.

    `owns_machine`: the VM ends with it. `hold_stdin`: see `streams.Input`.
    """

    def __init__(self, request: pb.CreateTaskRequest, machine: Machine, publisher: Publisher, state: State, *, owns_machine: bool) -> None:
        self.id = request.id
        self.bundle = request.bundle
        self.machine = machine
        self.pid = machine.pid
        self.owns_machine = owns_machine
        self.state = state
        self._publisher = publisher
        self.stdio = Stdio(request.stdin, request.stdout, request.stderr, request.terminal)
        self.init = Process(self.stdio, lambda process: self._exited(process, ""))
        self.paused = False
        self._execs: dict[str, ExecProcess] = {}

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
                self._publisher.publish(pb.TaskStart(container_id=self.id, pid=self.pid))

    def delete(self, exec_id: str) -> Exit:
        """Forget a process that has ended, or the container with its first one. Raises CallError."""
        process = self.process(exec_id)
        if process.status not in (CREATED, STOPPED):
            raise wrong_state(f"process {exec_id or self.id} is running")
        if exec_id:
            del self._execs[exec_id]
            return process.exit or Exit(0, time.time_ns())
        self.remove()
        end = process.exit or Exit(0, time.time_ns())
        self._publisher.publish(
            pb.TaskDelete(container_id=self.id, pid=self.pid, exit_status=end.status, exited_at=events.timestamp(end.at), id=self.id)
        )
        return end

    def remove(self) -> None:
        """Remove all that the container has, in the guest and on the host."""
        if self.owns_machine:
            self.machine.end()
        self.state.clear()

    def _exited(self, process: Process, exec_id: str) -> None:
        """Publish that a process has ended, and end the VM with the container that owns it."""
        end = process.exit
        if end is not None and process.started:
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
        """Set other limits. Raises CallError, RpcError and InnkeeperError."""
        raise unimplemented("the size of a pod's VM cannot be changed")

    def stats(self) -> pb.Any:
        """Return figures. Raises RpcError."""
        return stats.packed(pb.Metrics())


class GuestContainer(Container):
    """A container in the guest, where its id has a prefix: containerd allows ids that the agent does not."""

    def __init__(self, request: pb.CreateTaskRequest, machine: Machine, publisher: Publisher, state: State, *, owns_machine: bool) -> None:
        super().__init__(request, machine, publisher, state, owns_machine=owns_machine)
        self.agent_id = agent_id(request.id)
        self.folder = machine.shared / self.agent_id
        self._agent = machine.agent
        self._hold_stdin = False
        self._in_guest = False
        self._stats: tuple[float, pb.Any] | None = None

    def create(self, plan: spec.Plan, rootfs: Sequence[pb.Mount], root: Path | None, *, hold_stdin: bool) -> None:
        """Mount its root, bind its volumes, create it in the guest. `remove` must be called if it fails.

        `root` is a folder of the host in place of a snapshot's mounts. Raises OSError, CallError,
        InnkeeperError and RpcError.
        """
        self._hold_stdin = hold_stdin
        self.init = init = InitProcess(self._agent, self.agent_id, self.agent_id, self.stdio, lambda process: self._exited(process, ""))
        try:
            init.open_streams(hold_stdin=hold_stdin)
            target = self.folder / spec.ROOT
            if root is not None:
                mounts.bind(root, target, read_only=False)
            for mount in rootfs:
                mounts.mount_snapshot(mount.type, mount.source, mount.options, target)
            for bind in plan.binds:
                mounts.bind(bind.source, self.folder / bind.name, read_only=bind.read_only)
            self._agent.create_container(
                agent_pb2.CreateContainerRequest(
                    container_id=self.agent_id, exec_id=self.agent_id, OCI=to_proto(plan.document), sandbox_pidns=plan.shares_pids
                )
            )
        except BaseException:
            init.close()
            raise
        self._in_guest = True
        init.attend()

    def remove(self) -> None:
        if not self.owns_machine:
            if self._in_guest:
                try:
                    self._agent.remove_container(self.agent_id)
                except RpcError as error:
                    log.info(f"container {self.id}: {error}")  # its VM has ended
            mounts.remove(self.folder)
        super().remove()

    def add_process(self, request: pb.ExecProcessRequest) -> None:
        if request.exec_id in self._execs:
            raise already_exists(f"process {request.exec_id} exists in container {self.id}")
        if self.init.status != RUNNING:
            raise wrong_state(f"container {self.id} is not running")
        document = spec.process(json.loads(request.spec.value))
        stdio = Stdio(request.stdin, request.stdout, request.stderr, request.terminal)
        name, guest_id = request.exec_id, agent_id(request.exec_id)
        process = ExecProcess(
            self._agent, self.agent_id, guest_id, stdio, lambda ended: self._exited(ended, name), process_to_proto(document)
        )
        process.hold_stdin = self._hold_stdin
        self._execs[name] = process
        self._publisher.publish(pb.TaskExecAdded(container_id=self.id, exec_id=name))

    def set_paused(self, paused: bool) -> None:
        if self.init.status != RUNNING:
            raise wrong_state(f"container {self.id} is not running")
        (self._agent.pause_container if paused else self._agent.resume_container)(self.agent_id)
        self.paused = paused
        self._publisher.publish(pb.TaskPaused(container_id=self.id) if paused else pb.TaskResumed(container_id=self.id))

    def update(self, resources: dict[str, Any]) -> None:
        self._agent.update_container(self.agent_id, resources_to_proto(spec.resources(resources)))

    def stats(self) -> pb.Any:
        now = time.monotonic()
        if self.init.exit is not None:
            raise not_found(f"container {self.id} has ended")
        if self._stats is None or now - self._stats[0] > STATS_SECONDS:
            self._stats = now, stats.packed(stats.metrics(self._agent.stats_container(self.agent_id)))
        return self._stats[1]


def agent_id(id: str) -> str:
    """Return the name in the guest for an id of containerd, which may have one character only."""
    return f"c-{id}"
