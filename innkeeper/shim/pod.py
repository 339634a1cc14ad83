"""The containers of one shim: one alone in its VM, or those of a pod in the pod's.

The first container boots the VM. If CRI says that it stands for a pod, there is nothing more to it,
and the pod's containers come later. Otherwise it is the VM's only one.
"""

import json
import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.shim import handler_options, pause, roots, sandbox_config, settings, spec, streams
from innkeeper.shim.cgroups import Cgroup, resolve
from innkeeper.shim.container import Container
from innkeeper.shim.errors import already_exists, not_found, unimplemented, wrong_state
from innkeeper.shim.events import Publisher
from innkeeper.shim.guest_container import GuestContainer, agent_id
from innkeeper.shim.hooks import Hooks
from innkeeper.shim.machine import Machine
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.process import Stdio
from innkeeper.shim.state import State
from innkeeper.shim.volumes import SHM
from innkeeper.wire.pb import agent_pb2

CRI_NAMESPACE = "k8s.io"
"""containerd's namespace of CRI. Its client says when a standard input ends; others may not."""
SHM_SIZE = 64 << 20


class Pod:
    """The containers by id, and their VM. Creations are made one after the other."""

    def __init__(self, namespace: str, publisher: Publisher, socket: Path) -> None:
        self._namespace = namespace
        self._publisher = publisher
        self._socket = socket
        self._creation = threading.Lock()
        self._containers: dict[str, Container] = {}
        self._machine: Machine | None = None
        self._sysctls: dict[str, str] = {}
        self._mounts: list[spec.Document] = []
        self._has_pause = False
        """Whether the pod's pid namespace exists in the guest."""

    def is_empty(self) -> bool:
        """Return whether there is no container, and none is being created."""
        return not self._containers and not self._creation.locked()

    @property
    def is_sandbox(self) -> bool:
        """Whether this is a pod of the sandbox service."""
        return bool(self._mounts)

    def has(self, id: str) -> bool:
        """Return whether there is a container with this id."""
        return id in self._containers

    def container(self, id: str) -> Container:
        """Return a container. Raises CallError."""
        try:
            return self._containers[id]
        except KeyError:
            raise not_found(f"container {id} not found") from None

    def create(self, request: pb.CreateTaskRequest) -> Container:
        """Create a container. Whatever fails, nothing of it stays.

        Raises CallError, InnkeeperError, OSError and RpcError.
        """
        if request.checkpoint:
            raise unimplemented("containers cannot be restored from a checkpoint")
        streams.check(Stdio(request.stdin, request.stdout, request.stderr, request.terminal))  # before a VM is booted for it
        with self._creation:
            if request.id in self._containers:
                raise already_exists(f"container {request.id} exists")
            document = json.loads(Path(request.bundle, "config.json").read_bytes())
            container = self._create(request, document, State(Path(request.bundle)))
            self._containers[request.id] = container
        io = pb.TaskIO(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal)
        self._publisher.publish(
            pb.TaskCreate(container_id=request.id, bundle=request.bundle, rootfs=request.rootfs, io=io, pid=container.pid)
        )
        container.attend()  # its exit comes after its creation
        return container

    def check_sandbox(self, request: pb.CreateSandboxRequest) -> None:
        """Refuse what no VM can do for a pod of the sandbox service.

        Raises CallError and InnkeeperError.
        """
        if request.sandbox_id in self._containers:
            raise already_exists(f"sandbox {request.sandbox_id} exists")
        spec.check(sandbox_config.document(sandbox_config.config(request), request.sandbox_id, request.netns_path))

    def create_sandbox(self, request: pb.CreateSandboxRequest) -> Container:
        """Boot the VM of a pod that has no pause container.

        Raises CallError, InnkeeperError, OSError and RpcError.
        """
        config = sandbox_config.config(request)
        document = sandbox_config.document(config, request.sandbox_id, request.netns_path)
        with self._creation:
            if request.sandbox_id in self._containers:
                raise already_exists(f"sandbox {request.sandbox_id} exists")
            task = pb.CreateTaskRequest(id=request.sandbox_id, bundle=request.bundle_path)
            container = self._create(task, document, State(Path(request.bundle_path)))
            try:
                self._mounts = sandbox_config.mounts(config, container.machine.folder / sandbox_config.POD_FILES)
            except BaseException:
                self._machine = None
                container.remove()
                raise
            self._containers[request.sandbox_id] = container
        container.attend()
        return container

    def _create(self, request: pb.CreateTaskRequest, document: spec.Document, state: State) -> Container:
        hooks = Hooks(document, request.id, state)
        if self._machine is not None:
            return self._create_in_guest(request, document, state, self._machine, hooks, owns_machine=False)
        if (document.get("annotations") or {}).get(spec.CONTAINER_TYPE) == "container":
            raise wrong_state("the VM of the pod has ended")
        sandbox = spec.is_sandbox(document)
        # What a VM cannot do is refused before one is booted.
        spec.check(document)
        if not sandbox:
            self._joined_container(spec.pid_namespace(document))
        found = settings.load(handler_options.config_path(request.options))
        if not sandbox:
            spec.plan(document, agent_id(request.id), {}, shares=found.shares)
            roots.plan(request.rootfs, shares=found.shares)
        machine = self._boot(request, document, state, found, hooks)
        try:
            if sandbox:
                self._machine, self._sysctls = machine, dict(document["linux"].get("sysctl") or {})
                return Container(request, machine, self._publisher, state, hooks, owns_machine=True)
            return self._create_in_guest(request, document, state, machine, hooks, owns_machine=True)
        except BaseException:
            _undo(machine, state, hooks)
            raise

    def _boot(
        self, request: pb.CreateTaskRequest, document: spec.Document, state: State, found: settings.Settings, hooks: Hooks
    ) -> Machine:
        """Boot the VM for `document`. What it has on the host is recorded first."""
        group = Cgroup(resolve(str(document["linux"].get("cgroupsPath") or "")))
        machine = Machine(found, found.state / self._namespace / request.id, group)
        state.add_folder(machine.folder)
        state.own_vm(self._socket, group.folders)
        try:
            machine.boot(_sandbox_request(request.id, document), spec.size(document), spec.network_namespace(document), hooks)
            machine.watch_memory(self._report_oom)
        except BaseException:
            _undo(machine, state, hooks)
            raise
        return machine

    def _create_in_guest(
        self, request: pb.CreateTaskRequest, document: spec.Document, state: State, machine: Machine, hooks: Hooks, *, owns_machine: bool
    ) -> Container:
        mounted = spec.with_mounts(document, self._mounts)
        shares = machine.settings.shares
        plan = spec.plan(mounted, agent_id(request.id), self._sysctls, selinux=machine.settings.guest_selinux, shares=shares)
        joined = self._joined_container(plan.pid_namespace)
        container = GuestContainer(request, machine, self._publisher, state, hooks, owns_machine=owns_machine)
        if not owns_machine and container.folder is not None:
            state.add_folder(container.folder)
        disks = roots.plan(request.rootfs, shares=shares)
        root = disks if request.rootfs else Path(request.bundle, document["root"]["path"])
        try:
            if not owns_machine:
                hooks.create(machine.pid)
            machine.protect(int(document["process"].get("oomScoreAdj") or 0))
            machine.bind(request.id, document["linux"].get("resources") or {})
            if joined == pause.ID and not self._has_pause:
                pause.create(machine.agent, machine.shared.path if machine.shared is not None else None)
                self._has_pause = True
            if joined:
                plan = replace(plan, document=spec.joining(plan.document, joined))
            container.create(plan, request.rootfs, root, hold_stdin=self._namespace == CRI_NAMESPACE)
        except BaseException:
            if not owns_machine:  # otherwise the caller ends the VM
                container.remove()
            raise
        return container

    def _joined_container(self, path: str) -> str:
        """Return the guest's id of the container whose pid namespace `path` is, or "" for no path.

        `path` is one of the host. That of the pod is the pause container's. Raises InnkeeperError
        for a path of none in this VM.
        """
        match = re.fullmatch(r"/proc/(\d+)/ns/pid", path)
        for container in self._containers.values():
            if match and container.pid == int(match[1]):
                return container.agent_id if isinstance(container, GuestContainer) else pause.ID
        if path:
            raise InnkeeperError(f"linux.namespaces[pid]: {path} is of no container in this VM")
        return ""

    def _report_oom(self, guest_id: str) -> None:
        for container in list(self._containers.values()):
            if isinstance(container, GuestContainer) and container.agent_id == guest_id:
                container.oom_reports.reported()

    def forget(self, id: str) -> None:
        """Drop a container that was removed."""
        container = self._containers.pop(id, None)
        if container is not None and container.owns_machine:
            self._machine = None

    def close(self) -> None:
        """End the VM, if there is still one."""
        for container in list(self._containers.values()):
            if container.owns_machine:
                container.remove()


def _undo(machine: Machine, state: State, hooks: Hooks) -> None:
    """Undo a creation that has failed."""
    if machine.end():
        hooks.stopped()
        state.clear()


def _sandbox_request(id: str, document: spec.Document) -> agent_pb2.CreateSandboxRequest:
    """Return the request for the sandbox: host name, and a /dev/shm for a pod to share."""
    options = ["noexec", "nosuid", "nodev", "mode=1777", f"size={_shm_size(document)}"]
    shm = agent_pb2.Storage(driver="ephemeral", source="shm", fstype="tmpfs", options=options, mount_point=SHM)
    return agent_pb2.CreateSandboxRequest(sandbox_id=agent_id(id), hostname=str(document.get("hostname") or ""), storages=[shm])


def _shm_size(document: spec.Document) -> int:
    """Return the size of the pod's /dev/shm: that of the file system that CRI has made for it."""
    sources: list[Any] = [mount.get("source") for mount in document.get("mounts") or () if mount["destination"] == "/dev/shm"]
    try:
        found = os.statvfs(sources[0])
    except (IndexError, OSError, TypeError):
        return SHM_SIZE
    return found.f_blocks * found.f_frsize if found.f_blocks else SHM_SIZE
