"""A virtual machine: start it, wait until its agent answers, end it.

Whatever happens, it leaves nothing behind.
"""

import os
import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from innkeeper.errors import InnkeeperError
from innkeeper.vm import accel, child_processes, failures, kernel_cmdline, network, qemu, registry, template, tsc, virtio_serial, vsock
from innkeeper.vm.config import VIRT, Forward, HostPrograms, VmConfig
from innkeeper.vm.port_forward_ipv6 import Relay
from innkeeper.vm.qmp import Qmp
from innkeeper.vm.readiness import Readiness
from innkeeper.vm.scsi import ScsiBus
from innkeeper.vm.virtiofsd import RunningShare

DIAL_ANYWAY = 20.0
"""Seconds after which a guest that should call is dialled all the same: its call may be lost."""


class VirtualMachine:
    """One QEMU with its helper processes, as a context manager.

    It ends with the `with`, and with this process.
    """

    def __init__(self, config: VmConfig, host: HostPrograms, entry: registry.Entry | None = None) -> None:
        """Use `entry` as the folder in the registry, or create one. `close` releases it."""
        self.config = config
        self.host = host
        self.entry = entry if entry is not None else registry.create()
        self.folder: Path = self.entry.folder
        self.forwards = config.forwards
        self.accel = ""
        self.machine_type = ""
        self.qmp: Qmp | None = None
        self.scsi: ScsiBus | None = None
        self._tsc_khz: int | None = None
        self._vsock: vsock.Backend | None = None
        self._shares: list[RunningShare] = []
        self._relays: list[Relay] = []
        self._rules: tuple[Forward, ...] | None = None
        self._qemu: subprocess.Popen[bytes] | None = None
        self._readiness: Readiness | None = None
        self._stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def console_path(self) -> Path:
        return self.folder / "console.log"

    @property
    def qemu_log(self) -> Path:
        return self.folder / "qemu.log"

    def take_ports(self) -> tuple[Forward, ...]:
        """Choose the ports of the host, unless that is done. Return what QEMU forwards, in IPv4.

        `start` does so too. Called before, it reports a port that is in use before anything is said
        about a start. Raises PortError, and `close` must still be called then.
        """
        if self._rules is None:
            resolved = network.resolve_ports(self.config.forwards)
            self._rules, self.forwards = resolved.rules, resolved.forwards
            self._relays = [Relay(listener, port) for listener, port in resolved.listeners]
        return self._rules

    def start(self) -> None:
        """Start QEMU and its helpers.

        Raises InnkeeperError, and `close` must still be called then. May be called again after
        `end`.
        """
        self._stopping = False
        self._choose()
        rules = self.take_ports()
        self._vsock = self._open_channel()
        for index, share in enumerate(self.config.shares):
            if self.host.virtiofsd is None:
                raise InnkeeperError("folders are shared by virtiofsd, and none is given")
            self._shares.append(RunningShare(share, index, self.folder, self.host.virtiofsd))
        for running in self._shares:
            running.connect()
        self.qemu_log.write_text("")
        self.started = time.monotonic()
        self.qmp = Qmp()
        command = self._start_qemu(replace(self._launch(self._vsock, rules), qmp_fd=self.qmp.fd))
        assert self._qemu is not None
        self._readiness = Readiness(self._vsock, self._qemu, self._raise_if_ended)
        self.scsi = ScsiBus(self.qmp) if self.config.plugs_disks else None
        self.entry.update(
            status="running",
            pid=self._qemu.pid,
            owner=os.getpid(),
            address=self._vsock.address("PORT"),
            accel=self.accel,
            machine_type=self.machine_type,
            memory_mib=self.config.memory_mib,
            cpus=self.config.cpus,
            forwards=[str(f) for f in self.forwards],
            command=shlex.join(command),
        )

    def _choose(self) -> None:
        """Choose accelerator and machine type."""
        foreign = self.config.machine_type == VIRT
        self.accel = "tcg" if foreign else accel.choose(self.config.accel)
        self._tsc_khz = tsc.khz() if self.accel == "tcg" and not foreign else None
        self.machine_type = qemu.choose_machine_type(self.config, clock=self.accel == "kvm" or self._tsc_khz is not None)

    def _open_channel(self) -> vsock.Backend:
        return virtio_serial.open_backend(self.folder, self.host)

    def _start_qemu(self, launch: qemu.Launch, fds: tuple[int, ...] = ()) -> list[str]:
        """Start QEMU, which inherits `fds` too. Return its command line."""
        assert self._vsock is not None and self.qmp is not None
        fds += (*self._vsock.fds, self.qmp.fd, *(share.fd for share in self._shares))
        argv = qemu.arguments(launch)
        if taps := self.config.taps:
            if self.host.nsenter is None:
                raise InnkeeperError("a VM with a tap device is started by nsenter, and none is given")
            fds += tuple(tap.fd for tap in taps)
            argv = [str(self.host.nsenter), f"--net={taps[0].namespace}", "--", *argv]
        self._qemu = child_processes.spawn(self.host.setpriv, argv, folder=self.folder, log=self.qemu_log, fds=fds)
        self._vsock.close_fds_after_spawn()
        self.qmp.close_far_end()
        return argv

    def _launch(self, backend: "vsock.Backend | type[vsock.Backend]", forwards: tuple[Forward, ...]) -> qemu.Launch:
        """Return the inputs of QEMU's argument list."""
        config = self.config
        line = kernel_cmdline.build(
            machine_type=self.machine_type,
            quiet=config.quiet,
            root_device=config.root_device,
            root_type=config.root_type,
            tsc_khz=self._tsc_khz,
            ready_port=backend.ready_port if config.calls_out else None,
            channel=backend.channel,
            cloneable=config.cloneable,
            # Disks are scanned for when they are used, not at boot: the bus has 256 addresses.
            extra=(*(("scsi_mod.scan=manual",) if config.plugs_disks else ()), *config.cmdline),
        )
        return qemu.Launch(
            config=config,
            program=str(self.host.qemu),
            name=self.entry.id,
            machine_type=self.machine_type,
            accel=self.accel,
            cpu=accel.cpu_model(),
            cmdline=line,
            forwards=forwards,
            vsock_chardev=backend.chardev,
            vsock_device=backend.device,
            share_fds=tuple(s.fd for s in self._shares),
        )

    def state_key(self) -> str:
        """Return the key of what must be equal to load this VM's state (`template.key_of`)."""
        return template.key_of(self._launch(virtio_serial.VirtioSerial, ()))

    def wait_ready(self, timeout: float) -> None:
        """Wait until the agent answers Health.Check.

        Raises InnkeeperError with the console's last lines after `timeout` seconds, or as soon as
        the guest or a helper process has ended.
        """
        assert self._readiness is not None, "start() comes first"
        deadline = time.monotonic() + timeout
        if self.config.calls_out:
            self._readiness.wait_call(min(deadline, time.monotonic() + DIAL_ANYWAY))
        if not self._readiness.wait_answer(deadline):
            raise failures.with_console(f"the guest did not answer within {timeout:.0f} s", self.console_path)

    def wait_channel(self, timeout: float) -> None:
        """Wait until the loaded guest has answered on its channel. Raises InnkeeperError."""
        assert self._readiness is not None, "start() comes first"
        if not self._readiness.wait_call(time.monotonic() + timeout):
            raise InnkeeperError(f"the loaded guest did not answer within {timeout:.0f} s")

    @property
    def channel(self) -> vsock.Backend | None:
        """The way to the guest's ports, while the VM runs."""
        return self._vsock

    @property
    def processes(self) -> "list[subprocess.Popen[bytes]]":
        """QEMU, then the helper processes, while the VM runs.

        The guest cannot go on without any of them.
        """
        helpers = [self._vsock.process if self._vsock is not None else None, *(share.process for share in self._shares)]
        return [process for process in (self._qemu, *helpers) if process is not None]

    def address(self, port: int) -> str:
        """Return the address of the guest's vsock `port`, for `innkeeper.client.connect`."""
        assert self._vsock is not None, "start() comes first"
        return self._vsock.address(port)

    def poll(self) -> int | None:
        """Return QEMU's return code (negative: killed by that signal), or None while it runs."""
        return None if self._qemu is None else self._qemu.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until QEMU ends. Return its return code. Raises TimeoutError."""
        assert self._qemu is not None, "start() comes first"
        try:
            return self._qemu.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the VM still runs after {timeout} s") from None

    def announce(self) -> None:
        """Have the guest announce its hardware address, which has changed. Raises InnkeeperError.

        QEMU's network sends what comes for a forwarded port to the address that it last heard of.
        That is the saved VM's, because QEMU asks the guest to announce itself when its state is
        loaded.
        """
        assert self.qmp is not None, "start() comes first"
        self.qmp.execute("announce-self", {"initial": 50, "max": 550, "rounds": 5, "step": 100})

    def failure(self) -> InnkeeperError | None:
        """Return the error of a failed VM, or None.

        A VM has failed if the guest's kernel panicked, or if QEMU or a helper ended unexpectedly.
        """
        if (panic := failures.of_panic(self.console_path)) is not None:
            return panic
        if (code := self.poll()) is not None and not self._stopping:
            return failures.of_qemu(code, self.qemu_log, self.console_path)
        for part in (self._vsock, *self._shares):
            if part is not None and not self._stopping and (reason := part.failure()) is not None:
                return failures.with_console(reason, self.console_path)
        return None

    def _raise_if_ended(self) -> None:
        if self.poll() is not None or any(p is not None and p.failure() for p in (self._vsock, *self._shares)):
            raise self.failure() or failures.with_console("the VM has ended", self.console_path)

    def stop(self, timeout: float) -> int:
        """Wait `timeout` seconds for the guest to power off, as requested, then end QEMU.

        Return QEMU's return code.
        """
        self._stopping = True
        try:
            return self.wait(timeout)
        except TimeoutError:
            return self.kill()

    def kill(self) -> int:
        """End QEMU now. Return its return code."""
        self._stopping = True
        return child_processes.end(self._qemu) if self._qemu is not None else 0

    def close(self) -> None:
        """End all processes and release the folder. May be called twice."""
        self.end()
        if self.entry.keep:
            self.entry.update(status="ended", pid=None, address=None)
        self.entry.release()

    def end(self) -> None:
        """End all processes. May be called twice. Another VM may start in the folder afterwards."""
        self._stopping = True
        # QEMU ends first: its helpers end when their connection to it is closed.
        if self._qemu is not None:
            child_processes.end(self._qemu)
        for relay in self._relays:
            relay.close()
        self._relays, self._rules = [], None
        for share in self._shares:
            share.close()
        self._shares = []
        if self._vsock is not None:
            self._vsock.close()
            self._vsock = None
        if self.qmp is not None:
            self.qmp.close()
            self.qmp = None
