"""The sandbox: the guest's containers by id, what they share, and the shutdown of all.

Requests run as concurrent tasks, and any of them may be cancelled by a client's deadline at an
await. Creating the sandbox or a container undoes itself in that case. Starting and removing a
container and destroying the sandbox go on to their end in a task of their own (agent/run_to_completion.py).
"""

import errno
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent import event_log, log, loop
from agent.container import step_times
from agent.container.container import Container
from agent.container.host_context import HostContext
from agent.container.process_io import DEFAULT_IO, ProcessIO
from agent.container.spec.document import parse_process, parse_spec
from agent.container.stdio import Stdio
from agent.container_events import ContainerEvents
from agent.device.watch import DeviceWatch
from agent.errors import AgentError, AlreadyExists, NotFound, Refused, StepFailed, WrongState
from agent.linux.swap import swapoff, swapon
from agent.pod.namespaces import SharedNamespaces, ends_now, pid_namespace_of, without_container
from agent.pod.shell import Shells
from agent.pod.signals import would_drop
from agent.pod.spec_translator import SpecTranslator
from agent.run_to_completion import run_to_completion
from agent.storage.manager import StorageManager, mount_storages
from agent.storage.tree import clear_directory
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from agent.config import Config
    from agent.container.process import ContainerProcess
    from agent.container.spec.document import Spec
    from agent.container.spec.process import Process
    from agent.container.spec.reader import Document
    from agent.pod.streams import Passthrough, Streams
    from agent.policy.policy_set import PolicySet
    from agent.storage.copyfile import FileCopies
    from innkeeper.wire.pb.agent_pb2 import CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest

STATE = "/run/kata-containers"
SHARED = f"{STATE}/shared"
"""The directory with what the host shares with the guest or copies to it. Containers have volumes
there."""
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
MODULE = re.compile(r"[A-Za-z0-9_-]+")
"""A name as modprobe takes it: it may have a hyphen where sysfs has an underscore."""
CREATING_SECONDS = 10.0
"""Seconds that `destroy` waits for containers that are being created."""
OWN = frozenset(("net",))
"""Namespaces that belong to the sandbox although no spec lists them. Their sysctls may be set."""


class Sandbox:
    """The one sandbox of this guest. `cgroup_root` is the directory above containers' cgroups."""

    def __init__(self, settings: "Config", cgroup_root: Path) -> None:
        self._settings = settings
        self.cgroup_root = cgroup_root
        self.id = ""
        self.shells = Shells()
        """Processes of the pseudo-container "guest"."""
        self.devices = DeviceWatch(settings.hotplug_timeout)
        self.storages = StorageManager(self.devices)
        self.oom_events: loop.Queue[str] = loop.Queue()
        self.events = event_log.Events()
        self._life = ContainerEvents(self.events, self.oom_events)
        self.ended = loop.Event()
        """Set when the sandbox is destroyed. The agent then exits once its answers are sent."""
        self._containers: dict[str, Container] = {}
        self._created: dict[str, float] = {}
        """Container id -> time of creation, in seconds since the epoch."""
        self._copies: FileCopies | None = None
        self._policies: PolicySet | None = None
        """The policies that requests are checked against, or None without a policy."""
        self._passthrough: Passthrough | None = None
        """The host's connections for the streams of processes, if the settings enable them."""
        self._swaps: list[str] = []
        """Device nodes of swap space that the host has added."""
        self._namespaces = SharedNamespaces()
        self._translator = SpecTranslator(settings, self.devices)
        self._mount_points: dict[str, list[str]] = {}
        self._creating: set[str] = set()
        self._creation_ended = loop.Event()
        """Set when the creation of a container has ended, with success or not."""
        self._removing: dict[str, loop.Event] = {}
        self._ending: loop.Task[None] | None = None

    @property
    def copies(self) -> "FileCopies":
        """The file copies of the CopyFile request, for a guest without a shared directory."""
        if self._copies is None:
            from agent.storage.copyfile import FileCopies

            self._copies = FileCopies()
        return self._copies

    def pass_streams(self) -> "Passthrough":
        """Let processes have connections of the host as streams. Return what accepts these."""
        from agent.pod.streams import Passthrough

        self._passthrough = Passthrough()
        return self._passthrough

    @property
    def policies(self) -> "PolicySet":
        """The policies in force. Most guests have none, and then their code is not even imported."""
        if self._policies is None:
            from agent.policy.policy_set import PolicySet

            self._policies = PolicySet()
        return self._policies

    def check_policy(self, service: str, method: str, request: object) -> None:
        """Raise Denied if a policy in force does not allow the request."""
        if self._policies is not None:
            self._policies.check(service, method, request)

    # the sandbox itself

    async def create(self, request: "CreateSandboxRequest") -> None:
        """Set up what the containers share: namespaces, storages, DNS and guest hooks.

        Raises AlreadyExists and Refused, and AgentError if a step fails. A failure is undone, and
        the host may try again.
        """
        if self.id:
            raise AlreadyExists(f"sandbox {self.id} is there already")
        _refuse_unsupported(request)
        self.id = request.sandbox_id or "sandbox"
        points: list[str] = []
        try:
            clear_directory(STATE)
            os.makedirs(STATE, exist_ok=True)
            self._namespaces.make(request.hostname)
            points = await mount_storages(self.storages, request.storages)
            self._translator.use_hooks(request.guest_hook_path)
            if any(line.strip() for line in request.dns):
                from agent.network.dns import set_dns

                set_dns(list(request.dns))  # the last step: its bind would stay after a failure
        except BaseException:
            try:
                await self.storages.release(points)
            finally:
                # Only now: otherwise this would unmake the namespaces of the next creation.
                self.id = ""
                self._namespaces.unmake()
            raise
        self._mount_points[""] = points

    async def destroy(self) -> None:
        """Remove every container, then swap and storages.

        Errors are logged and not raised, as the VM is about to be shut down. Once begun the work
        goes on to its end even if every caller is cancelled, and no container can be created.
        """
        if self._ending is None:
            self._ending = loop.spawn(self._destroy(), name="destroy sandbox")
        await self._ending.wait()

    async def _destroy(self) -> None:
        try:
            await self._let_creations_end()
            for container_id in reversed(list(self._containers)):
                if container_id in self._containers:
                    await self._logged(self.remove(container_id), f"container {container_id}")
            for step in (self._swap_off(), self.storages.clear()):
                await self._logged(step, "destroy")
        finally:
            self.oom_events.close()
            self.devices.close()
            self.end()

    def end(self) -> None:
        """End the agent, with the sandbox as it is."""
        self.ended.set()

    async def _let_creations_end(self) -> None:
        """Wait up to CREATING_SECONDS for containers being created. No new ones are admitted."""
        try:
            with loop.timeout(CREATING_SECONDS):
                while self._creating:
                    self._creation_ended.clear()
                    await self._creation_ended.wait()
        except TimeoutError:
            log.error(f"containers still being created after {CREATING_SECONDS:g} s: {', '.join(sorted(self._creating))}", "sandbox")

    async def _logged(self, step: "Awaitable[None]", what: str) -> None:
        """Await a step of the shutdown and log its error."""
        try:
            await step
        except (OSError, AgentError, TimeoutError) as error:
            log.error(f"{what}: {error}", "sandbox")

    async def add_swap(self, node: str) -> None:
        """Call swapon(2) and record the device, so that `destroy` can call swapoff(2).

        Both run to their end even if the deadline of the client passes in between: otherwise the
        device would be in use and nothing would release it.
        """

        async def work() -> None:
            await run_in_worker(lambda: swapon(node), "swapon")
            self._swaps.append(node)

        await run_to_completion(work(), f"swapon {node}")

    async def _swap_off(self) -> None:
        if self._swaps:
            nodes, self._swaps = self._swaps, []
            await run_in_worker(lambda: swapoff(*nodes), "swapoff")

    # containers

    def list_containers(self) -> "list[tuple[Container, float]]":
        """Return each container with the time of its creation, in seconds since the epoch."""
        return [(container, self._created[id_]) for id_, container in self._containers.items()]

    def container(self, container_id: str) -> Container:
        """Return the container with this id. Raises NotFound."""
        try:
            return self._containers[container_id]
        except KeyError:
            raise NotFound(f"container {container_id!r} not found") from None

    def process(self, container_id: str, exec_id: str) -> "ContainerProcess":
        """Return a process by container id and exec id. Raises NotFound.

        The container id "guest" stands for the guest itself, with the processes of its shell.
        """
        if container_id == "guest" and container_id not in self._containers:
            try:
                return self.shells.processes[exec_id]
            except KeyError:
                raise NotFound(f"Process not found: {exec_id!r} in the guest") from None
        return self.container(container_id).process(exec_id)

    async def claim_streams(self, request: "CreateContainerRequest | ExecProcessRequest", terminal: bool) -> "Streams | None":
        """Return the host's connections for a process's streams, or None if the request names none.

        Raises Refused if it names one and the passthrough port is not open.
        """
        if not (request.stdin_port or request.stdout_port or request.stderr_port):
            return None
        if self._passthrough is None:
            raise Refused("stdin_port, stdout_port, stderr_port", "agent.passfd_listener_port is not set")
        return await self._passthrough.claim(request.stdin_port, request.stdout_port, request.stderr_port, terminal)

    async def create_container(self, request: "CreateContainerRequest", document: "Document") -> "ContainerProcess":
        """Mount the storages and create the container, without starting its program.

        Returns its first process. Raises AgentError, among them AlreadyExists, and WrongState once
        the sandbox is being destroyed. A failed creation leaves nothing behind.
        """
        container_id = request.container_id
        check_id("container_id", container_id)
        check_id("exec_id", request.exec_id or container_id)
        if self._ending is not None:
            raise WrongState("the sandbox is at its end")
        if container_id in self._containers or container_id in self._creating:
            raise AlreadyExists(f"container {container_id!r} exists")
        self._creating.add(container_id)
        points: list[str] = []
        try:
            step_times.mark("begin")
            document, target = without_container(document)
            spec = parse_spec(await self._translator.container(request, document), sandbox=OWN)
            _warn(container_id, spec.warnings)
            step_times.mark("agent: parse specification")
            points = await mount_storages(self.storages, request.storages, container_id=container_id)
            step_times.mark("agent: mount storages")
            container = await self._contain(container_id, request.exec_id or container_id, spec, request.sandbox_pidns, target)
            self._containers[container_id] = container
            self._created[container_id] = time.time()
            self.storages.commit(points)
            self._mount_points[container_id] = points
            self._life.follow(event_log.CREATED, container_id, "", container.init)
            return container.init
        except BaseException:
            self._translator.forget(container_id)
            await self.storages.release(points)
            raise
        finally:
            self._creating.discard(container_id)
            self._creation_ended.set()

    async def _contain(self, container_id: str, exec_id: str, spec: "Spec", shares_pids: bool, target: str) -> Container:
        """Create the container with the sandbox's namespaces, or with the pid namespace of the container `target`.

        The first of all is made alone.
        """
        async with self._namespaces.creation_lock():
            joined = self.container(target) if target else None
            pids = pid_namespace_of(joined) if joined else self._namespaces.pid() if shares_pids else None
            namespaces = self._namespaces.paths
            host = HostContext(self.cgroup_root, Path(STATE), namespaces=namespaces, pid_namespace=pids, owned=OWN, shared=(SHARED,))
            try:
                container = await Container.create(container_id, exec_id, spec, host, self._io(spec.process))
            except StepFailed as error:
                if pids is not None and error.errno == errno.ENOMEM:
                    if joined is None:
                        await self._namespaces.check_ending()
                    elif await ends_now(joined):
                        pid_namespace_of(joined)
                raise
            _warn(container_id, container.warnings)
            self._namespaces.created(container)
            return container

    def _io(self, process: "Process | None") -> ProcessIO:
        """Return the stdio of a new process, with pipes of the configured size."""
        size = self._settings.container_pipe_size
        return ProcessIO(Stdio(process.terminal, size)) if size and process is not None else DEFAULT_IO

    async def start(self, container_id: str) -> None:
        """Start a container's program and watch its cgroup for out-of-memory kills.

        A caller's deadline stops neither. Raises AgentError.
        """
        container = self.container(container_id)

        async def work() -> None:
            await self._life.start(container_id, container.start())
            loop.spawn(container.watch_oom(lambda kills: self._life.out_of_memory(container_id, kills)), name=f"oom {container_id}")

        await run_to_completion(work(), f"start {container_id}")

    async def exec(self, container_id: str, exec_id: str, document: "Document") -> "ContainerProcess":
        """Start an additional process in a container, and return it.

        Properties that the document leaves out are those of the container's first process. Raises
        AgentError.
        """
        check_id("exec_id", exec_id)
        container = self.container(container_id)
        process = parse_process(self._translator.process(container_id, document))
        # Not looked up by its id afterwards: a caller of `wait` may have taken it out of the table.
        started = await container.exec(exec_id, process, self._io(process))
        self._life.follow(event_log.STARTED, container_id, exec_id, started)
        return started

    async def wait(self, container_id: str, exec_id: str) -> int:
        """Wait for a process and return its exit status.

        This also works if the container is removed meanwhile.
        An exec'd process is then removed from the table, so its status can be fetched only by calls
        that were already waiting. Raises NotFound.
        """
        process = self.process(container_id, exec_id)
        container = self._containers.get(container_id)
        table = self.shells.processes if container is None else container.processes
        status = await process.wait()
        if (container is None or process is not container.init) and table.get(exec_id) is process:
            del table[exec_id]
            process.close()
        return status

    def signal(self, container_id: str, exec_id: str, signum: int) -> None:
        """Send a signal to a process.

        Without an exec id SIGKILL goes to all processes of the container and other signals to its
        first process. The kernel drops SIGTERM for the first process of a pid namespace if that
        neither handles nor blocks it (pid_namespaces(7)), so SIGKILL is sent instead. It is no
        error if the process has ended.

        Raises NotFound, and Refused for a number that is not a signal.
        """
        if not 1 <= signum <= 64:
            raise Refused("signal", f"{signum} is not a signal")
        if container_id in self._containers and not exec_id and signum == signal.SIGKILL:
            self._containers[container_id].signal_all(signum)
            return
        process = self.process(container_id, exec_id)
        if process.exit_status is not None:
            return
        is_init = container_id in self._containers and process is self._containers[container_id].init
        if is_init and signum == signal.SIGTERM and would_drop(process.pid, signum):
            signum = signal.SIGKILL
        try:
            process.signal(signum)
        except WrongState:
            pass  # the process has just ended

    async def remove(self, container_id: str) -> None:
        """Kill a container's processes and release all its resources. Raises AgentError.

        Once begun the removal goes on to its end. A second call meanwhile waits for the first, and
        tries again if that has failed.
        """
        container = self.container(container_id)
        while container_id in self._removing:
            await self._removing[container_id].wait()
            if self._containers.get(container_id) is not container:
                return
        self._removing[container_id] = loop.Event()
        await run_to_completion(self._remove(container), f"remove {container_id}")

    async def _remove(self, container: Container) -> None:
        try:
            reported = len(container.warnings)
            await container.remove()
            await self._life.exits_published(container.id)
            _warn(container.id, container.warnings[reported:])
            self._namespaces.removed(container)
            self._containers.pop(container.id, None)
            self._created.pop(container.id, None)
            self.events.publish(event_log.REMOVED, container.id)
            self._translator.forget(container.id)
            await self.storages.release(self._mount_points.pop(container.id, []))
            step_times.finished()
        finally:
            self._removing.pop(container.id).set()


def _warn(container_id: str, warnings: "Sequence[str]") -> None:
    for warning in warnings:
        log.warn(warning, "container", container=container_id)


def check_id(field: str, value: str) -> None:
    """Raise Refused for an id that is not safe as a component of a path."""
    if not ID.fullmatch(value) or len(value) > 255:
        raise Refused(field, f"{value[:64]!r} must begin with a letter or digit and go on with letters, digits, _ . -")


def _refuse_unsupported(request: "CreateSandboxRequest") -> None:
    if len(request.hostname.encode()) > 64:
        raise Refused("hostname", "longer than 64 bytes")
    for module in request.kernel_modules:
        if module.parameters or not MODULE.fullmatch(module.name) or not os.path.isdir(f"/sys/module/{module.name.replace('-', '_')}"):
            raise Refused("kernel_modules", f"{module.name}: this kernel loads no modules")
