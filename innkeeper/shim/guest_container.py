"""A container in the guest: its root and its volumes in the share, its processes, its limits."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from innkeeper.client import RpcError
from innkeeper.errors import InnkeeperError
from innkeeper.image.proto import process_to_proto, resources_to_proto, to_proto
from innkeeper.shim import copied_volumes, log, spec, stats, streams
from innkeeper.shim.container import Container
from innkeeper.shim.errors import already_exists, not_found, wrong_state
from innkeeper.shim.events import Publisher
from innkeeper.shim.guest_process import ExecProcess, InitProcess
from innkeeper.shim.hooks import Hooks
from innkeeper.shim.machine import Machine
from innkeeper.shim.oom_reports import OomReports
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.process import LOST, RUNNING, Process, Stdio
from innkeeper.shim.roots import DiskRoot
from innkeeper.shim.state import State
from innkeeper.shim.volumes import ROOT
from innkeeper.wire.pb import agent_pb2

STATS_SECONDS = 1.0
"""Seconds for which statistics are good.

containerd 2 asks once a second, and an answer costs the guest time.
"""


class GuestContainer(Container):
    """A container in the guest, where its id has a prefix.

    containerd allows ids that the agent does not.
    """

    def __init__(
        self, request: pb.CreateTaskRequest, machine: Machine, publisher: Publisher, state: State, hooks: Hooks, *, owns_machine: bool
    ) -> None:
        super().__init__(request, machine, publisher, state, hooks, owns_machine=owns_machine)
        self.agent_id = agent_id(request.id)
        self.folder = machine.shared.path / self.agent_id if machine.shared is not None else None
        """What it has of the shared folder, if there is one."""
        self._agent = machine.agent
        self._hold_stdin = False
        self._in_guest = self._has_thread = False
        self._disks: list[str] = []
        self._copies: list[Path] = []
        self._log: Path | None = None
        self._stats: tuple[float, pb.Any] | None = None
        self.oom_reports = OomReports(lambda: publisher.publish(pb.TaskOOM(container_id=self.id)))

    def create(self, plan: spec.ContainerPlan, rootfs: Sequence[pb.Mount], root: Path | DiskRoot | None, *, hold_stdin: bool) -> None:
        """Mount its root, bind its volumes, create it in the guest.

        `remove` must be called if it fails. `root` is a folder of the host, or disks, in place of a
        snapshot's mounts. Raises OSError, CallError, InnkeeperError and RpcError.
        """
        document, storages = plan.document, list(plan.storages)
        self._hold_stdin = hold_stdin
        self.init = init = InitProcess(self._agent, self.agent_id, self.agent_id, self.stdio, lambda process: self._exited(process, ""))
        try:
            init.open_streams(hold_stdin=hold_stdin)
            if not self.owns_machine:
                self.pid, self._has_thread = self.machine.monitor.add_thread(self.agent_id), True
            if isinstance(root, DiskRoot):
                storages += root.storages(self.agent_id, [self._plug(path, read_only) for path, read_only in root.files])
                document = {**document, "root": {**document["root"], "path": root.path(self.agent_id)}}
            self._carry(plan, rootfs, root)
            devices = [
                agent_pb2.Device(type="scsi", id=self._plug(one.node, one.read_only), container_path=one.path) for one in plan.devices
            ]
            self._agent.create_container(
                agent_pb2.CreateContainerRequest(
                    container_id=self.agent_id,
                    exec_id=self.agent_id,
                    devices=devices,
                    OCI=to_proto(document),
                    storages=storages,
                )
            )
        except BaseException:
            init.close()
            raise
        self._in_guest = True

    def _carry(self, plan: spec.ContainerPlan, rootfs: Sequence[pb.Mount], root: Path | DiskRoot | None) -> None:
        """Share with the guest what the container has of the host, or copy it there."""
        shared = self.machine.shared
        if shared is None or self.folder is None:
            self._log = plan.log
            for source in plan.copies:
                self.machine.copies.acquire(source)
                self._copies.append(source)
            return
        if root is None:
            shared.mount_snapshot(rootfs, self.folder / ROOT)
        elif not isinstance(root, DiskRoot):
            shared.bind(root, self.folder / ROOT, read_only=False)
        for bind in plan.binds:
            place = self.folder / bind.name
            shared.bind(bind.source, place, read_only=bind.read_only, recursive=bind.recursive, follows=bind.follows)

    def attend(self) -> None:
        """Begin to copy the streams and to wait for the exit. containerd knows of the container."""
        assert isinstance(self.init, InitProcess), "create() comes first"
        self.init.attend()

    def _exited(self, process: Process, exec_id: str) -> None:
        if not exec_id and self._log is not None and process.started:
            try:  # kubelet looks for it once it knows of the exit
                if text := self._agent.diagnostic_data("termination_log", self.agent_id):
                    copied_volumes.write_message(self._log, text)
            except (RpcError, OSError) as error:
                log.error(f"container {self.id}: its termination log: {error}")
        if not exec_id and process.exit is not None and process.exit.status == LOST:
            with contextlib.suppress(RpcError):  # its VM has ended
                self.oom_reports.counted(stats.oom_kills(self._agent.stats_container(self.agent_id)))
        super()._exited(process, exec_id)

    def _plug(self, path: Path, read_only: bool) -> str:
        """Give the VM a disk until the container is removed. Return its address."""
        self._disks.append(self.machine.monitor.plug(path, read_only=read_only))
        return self._disks[-1]

    def remove(self) -> None:
        if not self.owns_machine:
            if self._in_guest:
                try:
                    self._agent.remove_container(self.agent_id)
                except RpcError as error:
                    log.info(f"container {self.id}: {error}")  # its VM has ended
            self._leave_vm()
            self.machine.release(self.id)
            if self.machine.shared is not None and self.folder is not None:
                self.machine.shared.remove(self.folder)
        super().remove()

    def _leave_vm(self) -> None:
        """Take its disks and its thread out of the VM, which goes on."""
        disks, self._disks = self._disks, []
        has_thread, self._has_thread = self._has_thread, False
        copies, self._copies = self._copies, []
        try:
            for source in copies:
                self.machine.copies.release(source)
            for disk in disks:
                self.machine.monitor.unplug(disk)
            if has_thread:
                self.machine.monitor.remove_thread(self.agent_id)
        except (InnkeeperError, RpcError) as error:
            log.info(f"container {self.id}: {error}")  # its VM has ended

    def add_process(self, request: pb.ExecProcessRequest) -> None:
        if request.exec_id in self._execs:
            raise already_exists(f"process {request.exec_id} exists in container {self.id}")
        if self.init.status != RUNNING:
            raise wrong_state(f"container {self.id} is not running")
        document = spec.process(json.loads(request.spec.value), selinux=self.machine.settings.guest_selinux)
        name, guest_id = request.exec_id, agent_id(request.exec_id)
        stdio = Stdio(request.stdin, request.stdout, request.stderr, request.terminal, id=name, namespace=self._publisher.namespace)
        streams.check(stdio)
        process = ExecProcess(
            self._agent, self.agent_id, guest_id, stdio, lambda ended: self._exited(ended, name), document=process_to_proto(document)
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
        self.machine.check_fits(resources)
        self.machine.bind(self.id, resources)
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
