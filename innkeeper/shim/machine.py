"""The VM of a container or a pod: boot it, give it folders of the host, end it.

All that the host has of it is in one folder: sockets, logs, and `shared`, which one virtiofsd
serves (`shared_folder`). With `shared_fs = "none"` there is neither, and the guest gets `copies`.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from innkeeper.client import Agent, Client, RpcError, connect
from innkeeper.engine import clock, guest_agent
from innkeeper.errors import InnkeeperError
from innkeeper.shim import clone, log, mounts, port_forward, spec
from innkeeper.shim.cgroups import Cgroup
from innkeeper.shim.copies import Copies
from innkeeper.shim.hooks import Hooks
from innkeeper.shim.monitor import Monitor
from innkeeper.shim.network import PodNetwork, configure
from innkeeper.shim.settings import Settings
from innkeeper.shim.shared_folder import SharedFolder
from innkeeper.shim.spec import Document, Size
from innkeeper.shim.vm_config import configuration, memory_mib
from innkeeper.shim.volumes import SHARE
from innkeeper.vm import AGENT_PORT, Share, VirtualMachine, VmConfig, qemu, registry
from innkeeper.vm.boot import boot
from innkeeper.wire.pb import agent_pb2

TAG = "shared"
CONNECT_SECONDS = 15.0
OOM_SCORE_MIN = -998
"""The lowest score of a VM, which is killed before kubelet and containerd. These have -999."""


class Machine:
    """One VM and its agent. `end` must be called, also after a failed `boot`."""

    def __init__(self, settings: Settings, folder: Path, group: Cgroup) -> None:
        self.settings = settings
        self.folder = folder
        self._shared: SharedFolder | None = None
        self._copies: Copies | None = None
        self._group = group
        self._vm: VirtualMachine | None = None
        self._monitor: Monitor | None = None
        self._client: Client | None = None
        self._network: PodNetwork | None = None
        self._oom_scores: list[int] = []
        self._bound: dict[str, tuple[str, str]] = {}
        self._binding = threading.Lock()
        self._reporting = threading.Lock()
        self._reports: list[Callable[[], None]] = []
        self._gone = False
        self._ending = threading.Lock()
        self._ended = False
        self._clean = False

    @property
    def agent(self) -> Agent:
        """The agent in the guest."""
        assert self._client is not None, "boot() comes first"
        return Agent(self._client)

    @property
    def shared(self) -> SharedFolder | None:
        """The folder that the guest sees, if there is one."""
        return self._shared

    @property
    def copies(self) -> Copies:
        """What the guest has copies of in place of that."""
        assert self._copies is not None, "boot() comes first"
        return self._copies

    @property
    def monitor(self) -> Monitor:
        """What changes the running VM."""
        assert self._monitor is not None, "boot() comes first"
        return self._monitor

    @property
    def pid(self) -> int:
        """The id of QEMU's process, which stands for all processes in the guest."""
        assert self._vm is not None, "boot() comes first"
        return int(self._vm.entry.get("pid"))

    def boot(self, sandbox: agent_pb2.CreateSandboxRequest, size: Size, namespace: str, hooks: Hooks) -> None:
        """Boot the VM and set up its sandbox.

        `namespace` is the path of a network namespace, or empty. Raises InnkeeperError, OSError and
        RpcError.
        """
        mounts.remove(self.folder)
        self.folder.mkdir(mode=0o700, parents=True)
        self._enter_group(size)
        shares = self._share() if self.settings.shares else ()
        if namespace or hooks.has_creation():
            self._network = PodNetwork(namespace, self.folder, hooks.create)
        taps = self._network.taps if self._network is not None else ()
        config = replace(configuration(self.settings, size), shares=shares, network=taps or False)
        started = clone.start(config, self.settings, self.folder)
        if started is not None:
            self._vm, self._client = started
            self._monitor = Monitor(self._vm)
            self._watch(self._vm.processes)
            self._set_oom_score(0)
        else:
            self._boot(config)
        if self._network is not None:
            self._connect(self._network, qemu.CARD_PATH if started is not None else "")
        if shares:
            sandbox.storages.append(agent_pb2.Storage(driver="virtio-fs", source=TAG, fstype="virtiofs", mount_point=f"{SHARE}/"))
        self.agent.create_sandbox(sandbox)
        if not shares:
            self._copies = Copies(self.agent)

    def _share(self) -> tuple[Share]:
        """Make the folder that the guest sees. Raises OSError."""
        self._shared = shared = SharedFolder(self.folder / "shared")
        return (replace(Share.of(TAG, shared.path), namespace=shared.namespace.path),)

    def _connect(self, network: PodNetwork, pci_path: str) -> None:
        """Give the guest the pod's addresses, and forward the pod's ports to it.

        Raises InnkeeperError and RpcError.
        """
        assert self._vm is not None, "the VM comes first"
        configure(network.connect(), self.agent, pci_path)
        if network.forward is not None:
            network.forward.start(self._vm.address(port_forward.PORT))

    def _boot(self, config: VmConfig) -> None:
        """Boot the VM. Raises InnkeeperError, OSError and RpcError."""
        self._vm = VirtualMachine(config, self.settings.host, registry.outside(self.folder.name, self.folder))
        self._monitor = Monitor(self._vm)
        boot(self._vm, self.settings.boot_seconds, started=lambda: self._set_oom_score(0))
        self._watch(self._vm.processes)
        self._client = connect(self._vm.address(AGENT_PORT), CONNECT_SECONDS)
        clock.set_now(self.agent)
        self.agent.reseed_random(os.urandom(64))

    def protect(self, oom_score: int) -> None:
        """Give QEMU the score of a container in it, if that is the lowest yet. Raises OSError.

        Otherwise the host's OOM killer would spare no VM, or every one.
        """
        self._oom_scores.append(oom_score)
        self._set_oom_score(min(self._oom_scores))

    def _set_oom_score(self, score: int) -> None:
        """Set that of QEMU, which has inherited the one of this process, which may be protected."""
        Path(f"/proc/{self.pid}/oom_score_adj").write_text(str(max(score, OOM_SCORE_MIN)))

    def _enter_group(self, size: Size) -> None:
        """Enter the VM's control group with this process, and so with all that it starts.

        Raises OSError.
        """
        self._group.make()
        if size.memory:
            self._group.limit_memory((memory_mib(self.settings, size) + self.settings.host_overhead_mib) << 20)
        if size.shares:
            self._group.set_shares(size.shares)
        self._group.enter()

    def check_fits(self, resources: Document) -> None:
        """Raise InnkeeperError for a new limit that is more than the VM has.

        Its size is set when it boots. A limit that a container is created with is only the most
        that it may use, as on any node.
        """
        assert self._vm is not None, "boot() comes first"
        spec.check_fits(resources, self._vm.config.memory_mib << 20, self._vm.config.cpus)

    def bind(self, id: str, resources: Document) -> None:
        """Bind the VM to the host's processors and memory nodes that the container `id` asks for.

        Raises InnkeeperError.
        """
        cpu = resources.get("cpu") or {}
        with self._binding:
            before = self._bound.get(id, ("", ""))
            self._bound[id] = str(cpu.get("cpus") or before[0]), str(cpu.get("mems") or before[1])
            self._apply_binding()

    def release(self, id: str) -> None:
        """Forget what a container asked for, if the VM goes on. Raises InnkeeperError."""
        with self._binding:
            if self._bound.pop(id, None) is not None and self._bound and not self._ended:
                self._apply_binding()

    def _apply_binding(self) -> None:
        """Bind the VM to processors and nodes of its containers, or to none if one is not bound."""
        cpus, mems = (",".join(sorted(set(part))) if all(part) else "" for part in zip(*self._bound.values(), strict=True))
        self._group.bind(cpus, mems)

    def watch_memory(self, report: Callable[[str], None]) -> None:
        """Report each container of which the guest's kernel kills a process.

        `report` is called with its id, in a thread.
        """

        def watch() -> None:
            # It ends with the connection, and at the end of the sandbox.
            with contextlib.suppress(RpcError):
                while True:
                    report(self.agent.get_oom_event())

        threading.Thread(target=watch, name="oom", daemon=True).start()

    def on_end(self, report: Callable[[], None]) -> None:
        """Call `report` once QEMU has ended, in a thread."""
        with self._reporting:
            if not self._gone:
                self._reports.append(report)
                return
        report()

    def _watch(self, processes: "Sequence[subprocess.Popen[bytes]]") -> None:
        """Watch QEMU and its helpers in a thread, and end QEMU with the first of them that ends.

        Without virtiofsd all that the guest does with its files would hang.
        """
        with contextlib.ExitStack() as opened:
            qemu, *helpers = (_open(process.pid, opened) for process in processes)
            opened.pop_all()  # all are open: they are the thread's now

        def watch() -> None:
            ready = select.poll()
            for descriptor in (qemu, *helpers):
                ready.register(descriptor, select.POLLIN)
            ready.poll()
            if not self._ended and (failure := self.failure()) is not None:
                log.error(failure.message)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(qemu, signal.SIGKILL)
            for descriptor in helpers:
                ready.unregister(descriptor)
            ready.poll()
            for descriptor in (qemu, *helpers):
                os.close(descriptor)
            with self._reporting:
                self._gone, reports = True, self._reports
            for report in reports:
                report()

        threading.Thread(target=watch, name="end of the VM's processes", daemon=True).start()

    def end(self) -> bool:
        """Shut the guest down, so that it writes all its data, and remove folder and cgroup.

        Return whether nothing is left. May be called twice, by two threads: the second waits for
        the first.
        """
        with self._ending:
            if not self._ended:
                self._ended = True
                self._clean = self._end()
            return self._clean

    def _end(self) -> bool:
        if self._copies is not None:
            self._copies.close()
        if self._vm is not None:
            if self._client is not None:
                # containerd waits for us.
                self._vm.stop(guest_agent.destroy_sandbox(Agent(self._client, guest_agent.END_SECONDS)))
                self._client.close()
            self._vm.close()
        if self._network is not None:
            self._network.close()
        if self._shared is not None:
            self._shared.close()
        clean = True
        for remove in (self._group.remove, lambda: mounts.remove(self.folder)):
            try:
                remove()
            except OSError as error:
                log.error(f"{self.folder}: {error}")  # the action `delete` tries again
                clean = False
        return clean

    def failure(self) -> InnkeeperError | None:
        """Return why the VM has ended, or None."""
        return self._vm.failure() if self._vm is not None else None


def _open(pid: int, opened: contextlib.ExitStack) -> int:
    """Return the pidfd of a process, which `opened` closes. Raises OSError."""
    descriptor = os.pidfd_open(pid)
    opened.callback(os.close, descriptor)
    return descriptor
