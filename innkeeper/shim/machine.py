"""The VM of a container or a pod: boot it, give it folders of the host, end it.

All that the host has of it is in one folder: sockets, logs, and `shared`, which one virtiofsd
serves. `shared` is a shared mount: what is bound below it later appears in the daemon's namespace,
and so in the guest.
"""

import contextlib
import os
import select
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from innkeeper.client import Agent, Client, RpcError, connect
from innkeeper.engine import clock
from innkeeper.errors import InnkeeperError
from innkeeper.shim import clone, log, mounts, port_forward
from innkeeper.shim.network import PodNetwork, configure
from innkeeper.shim.settings import Settings
from innkeeper.shim.spec import SHARE, SHM, Size
from innkeeper.vm import AGENT_PORT, Disk, Share, VirtualMachine, VmConfig, qemu, registry
from innkeeper.wire.pb import agent_pb2

TAG = "shared"
CONNECT_SECONDS = 15.0
END_SECONDS = 10.0
"""Seconds for the guest to remove its containers, or to power off."""
SHM_SIZE = 64 << 20


class Machine:
    """One VM and its agent. `end` must be called, also after a failed `boot`."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.shared = folder / "shared"
        self._vm: VirtualMachine | None = None
        self._client: Client | None = None
        self._network: PodNetwork | None = None
        self._oom_scores: list[int] = []
        self._ending = threading.Lock()
        self._ended = False

    @property
    def agent(self) -> Agent:
        """The agent in the guest."""
        assert self._client is not None, "boot() comes first"
        return Agent(self._client)

    @property
    def pid(self) -> int:
        """The id of QEMU's process, which stands for all processes in the guest."""
        assert self._vm is not None, "boot() comes first"
        return int(self._vm.entry.get("pid"))

    def boot(self, sandbox: agent_pb2.CreateSandboxRequest, size: Size, namespace: str) -> None:
        """Boot the VM and set up its sandbox. `namespace` is the path of a network namespace, or empty.

        Raises InnkeeperError, OSError and RpcError.
        """
        mounts.remove(self.folder)
        self.folder.mkdir(mode=0o700, parents=True)
        self.shared.mkdir()
        mounts.make_shared(self.shared)
        if namespace:
            self._network = PodNetwork(Path(namespace), self.folder)
        taps = self._network.taps if self._network is not None else ()
        config = replace(configuration(self.settings, size), shares=(Share.of(TAG, self.shared),), network=taps or False)
        started = clone.start(config, self.settings, self.folder)
        if started is not None:
            self._vm, self._client = started
            self._set_oom_score(0)
        else:
            self._boot(config)
        links = self._network.connect() if self._network is not None else ()
        configure(links, self.agent, qemu.CARD_PATH if started is not None else "")
        if self._network is not None and self._network.forward is not None:
            self._network.forward.start(self._vm.address(port_forward.PORT))
        sandbox.storages.append(agent_pb2.Storage(driver="virtio-fs", source=TAG, fstype="virtiofs", mount_point=f"{SHARE}/"))
        self.agent.create_sandbox(sandbox)

    def _boot(self, config: VmConfig) -> None:
        """Boot the VM. Raises InnkeeperError, OSError and RpcError."""
        self._vm = VirtualMachine(config, self.settings.host, registry.outside(self.folder.name, self.folder))
        self._vm.start()
        self._set_oom_score(0)
        self._vm.wait_ready(self.settings.boot_seconds)
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
        Path(f"/proc/{self.pid}/oom_score_adj").write_text(str(score))

    def plug(self, path: Path, *, read_only: bool) -> str:
        """Give the running VM a disk. Return its SCSI address, which the agent takes. Raises InnkeeperError."""
        assert self._vm is not None and self._vm.scsi is not None, "boot() comes first"
        return self._vm.scsi.plug(Disk(path, read_only=read_only))

    def unplug(self, address: str) -> None:
        """Take a disk out, which the guest does not use any more. Raises InnkeeperError."""
        assert self._vm is not None and self._vm.scsi is not None, "boot() comes first"
        self._vm.scsi.unplug(address)

    def watch_memory(self, report: Callable[[str], None]) -> None:
        """Call `report` with the id of each container of which the guest's kernel kills a process, in a thread."""

        def watch() -> None:
            # It ends with the connection, and at the end of the sandbox.
            with contextlib.suppress(RpcError):
                while True:
                    report(self.agent.get_oom_event())

        threading.Thread(target=watch, name="oom", daemon=True).start()

    def watch_end(self, report: Callable[[], None]) -> None:
        """Call `report` once QEMU has ended, in a thread."""
        descriptor = os.pidfd_open(self.pid)

        def watch() -> None:
            ready = select.poll()
            ready.register(descriptor, select.POLLIN)
            ready.poll()
            os.close(descriptor)
            if not self._ended and (failure := self.failure()) is not None:
                log.error(failure.message)
            report()

        threading.Thread(target=watch, name="end of QEMU", daemon=True).start()

    def end(self) -> None:
        """Shut the guest down, so that it writes what it has not yet, and remove the folder.

        May be called twice, by two threads: the second waits for the first.
        """
        with self._ending:
            if not self._ended:
                self._ended = True
                self._end()

    def _end(self) -> None:
        if self._vm is not None:
            if self._client is not None:
                self._vm.stop(self._destroy_sandbox(self._client))
                self._client.close()
            self._vm.close()
        if self._network is not None:
            self._network.close()
        try:
            mounts.remove(self.folder)
        except OSError as error:
            log.error(f"{self.folder}: {error}")  # the action `delete` tries again

    def _destroy_sandbox(self, client: Client) -> float:
        """Have the guest unmount the share, and so write all. Return the seconds that QEMU may take to end by itself.

        With the answer nothing is left to wait for, and containerd waits for us. Without one the guest
        is gone, or powers off already.
        """
        try:
            Agent(client, END_SECONDS).destroy_sandbox()
        except RpcError as error:
            return END_SECONDS if error.lost else 0
        return 0

    def failure(self) -> InnkeeperError | None:
        """Return why the VM has ended, or None."""
        return self._vm.failure() if self._vm is not None else None


def configuration(settings: Settings, size: Size) -> VmConfig:
    """Return the configuration of a VM for containers of this size, without its share and its network.

    It is also that of the template that such a VM starts from.
    """
    memory = max(settings.memory_mib, settings.overhead_mib + (size.memory >> 20)) if size.memory else settings.memory_mib
    return VmConfig(
        kernel=settings.kernel,
        root=settings.root,
        initrd=settings.initrd,
        memory_mib=memory,
        cpus=min(max(settings.cpus, size.cpus), os.cpu_count() or 1),
        network=False,
        accel=settings.accelerator,
        machine_type=settings.machine_type,
        cmdline=(port_forward.PARAMETER, *settings.kernel_parameters),
        plugs_disks=True,
    )


def sandbox_request(sandbox_id: str, hostname: str, shm_size: int = SHM_SIZE) -> agent_pb2.CreateSandboxRequest:
    """Return what the guest is asked for before its containers: host name, and a /dev/shm for a pod to share."""
    options = ["noexec", "nosuid", "nodev", "mode=1777", f"size={shm_size}"]
    shm = agent_pb2.Storage(driver="ephemeral", source="shm", fstype="tmpfs", options=options, mount_point=SHM)
    return agent_pb2.CreateSandboxRequest(sandbox_id=sandbox_id, hostname=hostname, storages=[shm])
