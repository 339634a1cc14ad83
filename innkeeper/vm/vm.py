"""A virtual machine: start it, wait until its agent answers, end it.

Whatever happens, it leaves nothing behind.
"""

import os
import select
import shlex
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from innkeeper.dial import dial
from innkeeper.errors import InnkeeperError
from innkeeper.vm import (
    AGENT_PORT,
    accel,
    child_processes,
    console,
    kernel_cmdline,
    network,
    qemu,
    registry,
    template,
    tsc,
    virtio_serial,
    vsock,
)
from innkeeper.vm.config import VIRT, Forward, HostPrograms, VmConfig
from innkeeper.vm.port_forward_ipv6 import Relay
from innkeeper.vm.qmp import Qmp, QmpError
from innkeeper.vm.scsi import ScsiBus
from innkeeper.vm.virtiofsd import RunningShare
from innkeeper.wire import status
from innkeeper.wire.connection import CLIENT, Connection, ResponseReceived
from innkeeper.wire.envelope import Request

CONSOLE_LINES = 15
"""Lines of the console that an error shows."""
LOAD_LINES = 6
"""Lines of QEMU's log that the error of a state that cannot be loaded shows."""
DIAL_ANYWAY = 20.0
"""Seconds after which a guest that should call is dialled all the same: its call may be lost."""
REDIAL_SECONDS = 0.02
"""Seconds between two attempts to dial."""


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
        self._ready = False
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

        `start` does so too. Whoever calls it before learns of a port that is in use before anything
        is said about a start. Raises PortError, and `close` must still be called then.
        """
        if self._rules is None:
            resolved = network.resolve_ports(self.config.forwards)
            self._rules, self.forwards = resolved.rules, resolved.forwards
            self._relays = [Relay(listener, port) for listener, port in resolved.listeners]
        return self._rules

    def start(self) -> None:
        """Start QEMU and its helpers.

        Raises InnkeeperError, and `close` must still be called then. May be called again after `end`.
        """
        self._ready = self._stopping = False
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
            bridges=config.cloneable,
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
        """Return the key of what must be equal where the state of this VM is loaded (see `template.key_of`)."""
        return template.key_of(self._launch(virtio_serial.VirtioSerial, ()))

    def wait_ready(self, timeout: float) -> None:
        """Wait until the agent answers Health.Check.

        Raises InnkeeperError with the console's last lines after `timeout` seconds, or as soon as
        the guest or a helper process has ended.
        """
        deadline = time.monotonic() + timeout
        if self.config.calls_out and not self._ready:
            self._await_ready(min(deadline, time.monotonic() + DIAL_ANYWAY))
        while True:
            self._raise_if_ended()
            try:
                self._check(deadline)
                return
            except OSError:
                self._raise_if_ended()
                if time.monotonic() >= deadline:
                    raise self._failure(f"the guest did not answer within {timeout:.0f} s") from None
                time.sleep(REDIAL_SECONDS)

    def wait_channel(self, timeout: float) -> None:
        """Wait until the loaded guest has answered on its channel. Raises InnkeeperError."""
        self._await_ready(time.monotonic() + timeout)
        if not self._ready:
            raise InnkeeperError(f"the loaded guest did not answer within {timeout:.0f} s")

    def _await_ready(self, deadline: float) -> None:
        """Wait for the guest's call, which reports that its agent listens.

        Dialling earlier would be unsafe: an unpatched vhost-device-vsock silently exits if the host
        connects before the guest's driver has set up its queues.
        """
        assert self._vsock is not None and self._qemu is not None, "start() comes first"
        listener = self._vsock.listener.fileno()
        gone = os.pidfd_open(self._qemu.pid)
        try:
            while (left := deadline - time.monotonic()) > 0:
                readable, _, _ = select.select([listener, gone], [], [], min(left, 0.5))
                if gone in readable:
                    self._raise_if_ended()
                if listener in readable and self._vsock.accept_ready():
                    self._ready = True
                    self._vsock.stop_listening()
                    return
                self._raise_if_ended()
        finally:
            os.close(gone)

    def _check(self, deadline: float) -> None:
        with self.connect(AGENT_PORT, deadline) as sock:
            sock.settimeout(max(0.05, deadline - time.monotonic()))
            check_health(sock)

    def connect(self, port: int, deadline: float) -> socket.socket:
        """Return a socket connected to the guest's vsock `port`. Raises OSError.

        `deadline` is a time of time.monotonic().
        """
        return dial(self.address(port), max(0.05, deadline - time.monotonic()))

    @property
    def channel(self) -> vsock.Backend | None:
        """The way to the guest's ports, while the VM runs."""
        return self._vsock

    @property
    def processes(self) -> "list[subprocess.Popen[bytes]]":
        """QEMU, then the helper processes, while the VM runs. The guest cannot go on without any of them."""
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
        That is the saved VM's, because QEMU asks the guest to announce itself when its state is loaded.
        """
        assert self.qmp is not None, "start() comes first"
        self.qmp.execute("announce-self", {"initial": 50, "max": 550, "rounds": 5, "step": 100})

    def console_tail(self, lines: int = CONSOLE_LINES) -> list[str]:
        """Return the console's last lines."""
        return console.tail(self.console_path, lines)

    def failure(self) -> InnkeeperError | None:
        """Return the error of a failed VM, or None.

        A VM has failed if the guest's kernel panicked, or if QEMU or a helper ended unexpectedly.
        """
        if (reason := console.panic(self.console_path)) is not None:
            memory = ", it ran out of memory" if console.ran_out_of_memory(self.console_path) else ""
            return self._failure(f"the guest's kernel panicked{memory}: {reason}")
        if (code := self.poll()) is not None and not self._stopping:
            return self._qemu_failure(code)
        for part in (self._vsock, *self._shares):
            if part is not None and not self._stopping and (reason := part.failure()) is not None:
                return self._failure(reason)
        return None

    def _raise_if_ended(self) -> None:
        if self.poll() is not None or any(p is not None and p.failure() for p in (self._vsock, *self._shares)):
            raise self.failure() or self._failure("the VM has ended")

    def _qemu_failure(self, code: int) -> InnkeeperError:
        stderr = self.qemu_log.read_text(errors="replace").strip() if self.qemu_log.exists() else ""
        if (port := network.explain(stderr)) is not None:
            return network.PortError(port, hint="choose another with -p, or stop what uses it: ss -lntup")
        if code == -signal.SIGBUS:
            return self._failure("QEMU was killed by SIGBUS: no space is left for the guest's memory")
        if code < 0:
            return self._failure(f"QEMU was killed by signal {-code}")
        if code > 0:
            return InnkeeperError(f"QEMU ended with status {code}: {stderr.splitlines()[-1] if stderr else 'it said nothing'}")
        return self._failure("the guest ended before it was asked to")

    def load_failure(self, error: QmpError) -> InnkeeperError:
        """Return the error of a QEMU that could not load its state, with what it said about it.

        Its last line only repeats that it failed; the reason is in those before it.
        """
        lines = self.qemu_log.read_text(errors="replace").strip().splitlines()[-LOAD_LINES:]
        return InnkeeperError(f"{error.message} ({'; '.join(lines)})" if lines else error.message)

    def _failure(self, message: str) -> InnkeeperError:
        lines = self.console_tail()
        if lines:
            message += "; its console's last lines:\n" + "\n".join(f"  {line}" for line in lines)
        else:
            message += "; nothing came on its console"
        return InnkeeperError(message)

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


def check_health(sock: socket.socket) -> None:
    """Call the agent's Health.Check on a connected socket, without message classes or threads.

    Raises OSError (TimeoutError, ConnectionError) unless the answer is OK.
    """
    connection = Connection(CLIENT)
    connection.send_request(Request("grpc.Health", "Check"))
    sock.sendall(connection.data_to_send())
    while data := sock.recv(4096):
        for event in connection.receive_data(data):
            if isinstance(event, ResponseReceived) and event.response.code != status.OK:
                raise ConnectionError(f"Health.Check answered {status.name(event.response.code)}: {event.response.message}")
            return
    raise ConnectionResetError("the connection ended")
