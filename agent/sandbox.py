"""The sandbox: what the guest's containers share, and the shutdown of all.

Requests run as concurrent tasks, and any of them may be cancelled by a client's deadline at an
await. Creating the sandbox undoes itself in that case. Destroying it goes on to its end in a task
of its own.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from agent import event_log, log, loop
from agent.container.host_context import HostContext
from agent.container_events import ContainerEvents
from agent.device.watch import DeviceWatch
from agent.errors import AgentError, AlreadyExists, Refused
from agent.linux.swap import swapoff, swapon
from agent.pod.containers import Containers
from agent.run_to_completion import run_to_completion
from agent.storage.manager import StorageManager, mount_storages
from agent.storage.tree import clear_directory
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from agent.config import Config
    from agent.pod.streams import Passthrough, Streams
    from agent.policy.policy_set import PolicySet
    from agent.storage.copyfile import FileCopies
    from innkeeper.wire.pb.agent_pb2 import CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest

STATE = "/run/kata-containers"
SHARED = f"{STATE}/shared"
"""The directory with what the host shares with the guest or copies to it. Containers have volumes
there."""
MODULE = re.compile(r"[A-Za-z0-9_-]+")
"""A name as modprobe takes it: it may have a hyphen where sysfs has an underscore."""
OWN = frozenset(("net",))
"""Namespaces that belong to the sandbox although no spec lists them. Their sysctls may be set."""


class Sandbox:
    """The one sandbox of this guest. `cgroup_root` is the directory above containers' cgroups."""

    def __init__(self, settings: "Config", cgroup_root: Path) -> None:
        self.cgroup_root = cgroup_root
        self.id = ""
        self.devices = DeviceWatch(settings.hotplug_timeout)
        self.storages = StorageManager(self.devices)
        self.oom_events: loop.Queue[str] = loop.Queue()
        self.events = event_log.Events()
        host = HostContext(cgroup_root, Path(STATE), owned=OWN, shared=(SHARED,))
        self.containers = Containers(settings, host, self.devices, self.storages, ContainerEvents(self.events, self.oom_events))
        self.ended = loop.Event()
        """Set when the sandbox is destroyed. The agent then exits once its answers are sent."""
        self._copies: FileCopies | None = None
        self._policies: PolicySet | None = None
        """The policies that requests are checked against, or None without a policy."""
        self._passthrough: Passthrough | None = None
        """The host's connections for the streams of processes, if the settings enable them."""
        self._swaps: list[str] = []
        """Device nodes of swap space that the host has added."""
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

    async def claim_streams(self, request: "CreateContainerRequest | ExecProcessRequest", terminal: bool) -> "Streams | None":
        """Return the host's connections for a process's streams, or None if the request names none.

        Raises Refused if it names one and the passthrough port is not open.
        """
        if not (request.stdin_port or request.stdout_port or request.stderr_port):
            return None
        if self._passthrough is None:
            raise Refused("stdin_port, stdout_port, stderr_port", "agent.passfd_listener_port is not set")
        return await self._passthrough.claim(request.stdin_port, request.stdout_port, request.stderr_port, terminal)

    @property
    def policies(self) -> "PolicySet":
        """The policies in force.

        Most guests have none, and then their code is not even imported.
        """
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
            self.containers.namespaces.make(request.hostname)
            points = await mount_storages(self.storages, request.storages)
            self.containers.translator.use_hooks(request.guest_hook_path)
            if any(line.strip() for line in request.dns):
                from agent.network.dns import set_dns

                set_dns(list(request.dns))  # the last step: its bind would stay after a failure
        except BaseException:
            try:
                await self.storages.release(points)
            finally:
                # Only now: otherwise this would unmake the namespaces of the next creation.
                self.id = ""
                self.containers.namespaces.unmake()
            raise

    async def destroy(self) -> None:
        """Remove every container, then swap and storages.

        Errors are logged and not raised, as the VM is about to be shut down. Once begun the work
        goes on to its end even if every caller is cancelled, and no container can be created.
        """
        if self._ending is None:
            self.containers.close()
            self._ending = loop.spawn(self._destroy(), name="destroy sandbox")
        await self._ending.wait()

    async def _destroy(self) -> None:
        try:
            await self.containers.let_creations_end()
            for container_id in reversed(list(self.containers.by_id)):
                if container_id in self.containers.by_id:
                    await self._logged(self.containers.remove(container_id), f"container {container_id}")
            for step in (self._swap_off(), self.storages.clear()):
                await self._logged(step, "destroy")
        finally:
            self.oom_events.close()
            self.devices.close()
            self.end()

    def end(self) -> None:
        """End the agent, with the sandbox as it is."""
        self.ended.set()

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


def _refuse_unsupported(request: "CreateSandboxRequest") -> None:
    if len(request.hostname.encode()) > 64:
        raise Refused("hostname", "longer than 64 bytes")
    for module in request.kernel_modules:
        if module.parameters or not MODULE.fullmatch(module.name) or not os.path.isdir(f"/sys/module/{module.name.replace('-', '_')}"):
            raise Refused("kernel_modules", f"{module.name}: this kernel loads no modules")
