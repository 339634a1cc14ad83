"""How the host reaches the guest's vsock ports: the kernel's vhost-vsock where it works, else vhost-device-vsock.

Both offer the same: properties for QEMU, an address for `innkeeper.client`, a listener for the guest's call that it is ready.
"""

import fcntl
import os
import secrets
import select
import socket
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.vm import console, lifetime, probe, sockets

VHOST_VSOCK_SET_GUEST_CID = 0x4008AF60
READY_PORT = 1023
"""Port of host CID 2 that the guest calls; on a host where all guests share the port numbers it is any free one."""
CREDIT = 28672
"""Bytes that the guest may send ahead. With vhost-device-vsock's own 65536 a guest's message of 32 KiB never arrives."""
DEVICE_SECONDS = 5.0
"""How long a helper process may take to make its socket."""
POKE_SECONDS = 0.3
"""How long an answer to CONNECT may take before the back end is woken up."""


class Backend(ABC):
    """One machine's vsock. `chardev`, `device` are QEMU's options; `fds` are what QEMU inherits; `ready_port` is what the guest calls."""

    chardev: str | None = None
    device: str
    fds: tuple[int, ...] = ()
    ready_port: int
    listener: socket.socket

    @abstractmethod
    def address(self, port: int | str) -> str:
        """For `innkeeper.client.connect`."""

    @abstractmethod
    def connect(self, port: int, deadline: float) -> socket.socket:
        """A socket connected to the guest's `port`. Raises OSError. `deadline` is of time.monotonic()."""

    @abstractmethod
    def handed_over(self) -> None:
        """QEMU has inherited `fds`."""

    def hang_up(self) -> None:
        """Take no more calls: from here on it would be a container's."""
        self.listener.close()

    @abstractmethod
    def take_call(self) -> bool:
        """Take a call from `listener`; whether it came from this machine's guest."""

    def failure(self) -> str | None:
        """Why the back end no longer works, or None."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""


def open_backend(folder: Path) -> Backend:
    """The back end that works on this host. Raises InnkeeperError."""
    kernel = KernelVsock.open()
    return kernel if kernel is not None else UserVsock(folder)


class KernelVsock(Backend):
    """vhost-vsock of the host's kernel (/dev/vhost-vsock, vhost_vsock.ko). The CID belongs to whoever holds the descriptor."""

    def __init__(self, fd: int, cid: int, listener: socket.socket) -> None:
        self.cid = cid
        self.fds = (fd,)
        self.device = f"vhost-vsock,guest-cid={cid},vhostfd={fd}"
        self.listener = listener
        self.ready_port = listener.getsockname()[1]

    @classmethod
    def open(cls) -> "KernelVsock | None":
        """None if this host has no vhost-vsock, or it does not work."""
        try:
            fd = os.open("/dev/vhost-vsock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        listener = None
        try:
            listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            listener.listen(16)
            return cls(fd, take_cid(fd), listener)
        except OSError:
            os.close(fd)
            if listener is not None:
                listener.close()
            return None

    def address(self, port: int | str) -> str:
        return f"vsock://{self.cid}:{port}"

    def connect(self, port: int, deadline: float) -> socket.socket:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(max(0.05, deadline - time.monotonic()))
            sock.connect((self.cid, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def handed_over(self) -> None:
        """The CID stays ours."""

    def take_call(self) -> bool:
        caller, (cid, _) = self.listener.accept()
        caller.close()
        return bool(cid == self.cid)  # all guests of a host share its port numbers

    def close(self) -> None:
        self.listener.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def take_cid(fd: int) -> int:
    """Give the vhost-vsock device `fd` a CID that no other guest has; the kernel refuses one that is taken. Raises OSError."""
    for _ in range(64):
        cid = 0x10000 + secrets.randbelow(0x7FFE0000)
        try:
            fcntl.ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, struct.pack("=Q", cid))
            return cid
        except OSError as error:
            last = error
    raise last


class UserVsock(Backend):
    """vhost-user-vsock: vhost-device-vsock serves the guest's queue; the host's side is unix sockets in the machine's folder.

    `agent.sock`: connect, send "CONNECT PORT\\n", read "OK ...\\n". `agent.sock_PORT`: where the guest's calls to CID 2 arrive.
    """

    ready_port = READY_PORT
    device = "vhost-user-vsock,chardev=vsock"

    def __init__(self, folder: Path) -> None:
        from innkeeper.guest.vsock_device import vhost_device_vsock

        self.folder = folder
        self.log = folder / "vsock.log"
        self.path = folder / "agent.sock"
        self.listener = sockets.listen(folder / f"agent.sock_{READY_PORT}")
        self._queue: socket.socket | None = None
        # The CID is the guest's own idea only: nothing outside this process knows it.
        argv = [str(vhost_device_vsock()), "--guest-cid", "3", "--socket", "vsock.sock", "--uds-path", "agent.sock"]
        self.process = lifetime.spawn([*argv, "--tx-buffer-size", str(CREDIT)], folder=folder, log=self.log)
        try:
            self._queue = connect_to_helper(folder / "vsock.sock", self.process, self.log, "vhost-device-vsock")
        except BaseException:
            self.close()
            raise
        self.fds = (self._queue.fileno(),)
        self.chardev = f"socket,id=vsock,fd={self._queue.fileno()}"

    def address(self, port: int | str) -> str:
        return f"hybrid://{self.path}:{port}"

    def connect(self, port: int, deadline: float) -> socket.socket:
        sock = sockets.connect(self.path, timeout=1)
        try:
            sock.sendall(b"CONNECT %d\n" % port)
            while not select.select([sock], [], [], POKE_SECONDS)[0]:
                if time.monotonic() >= deadline:
                    raise TimeoutError("no answer to CONNECT")
                self.poke()
            probe.read_ok(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def handed_over(self) -> None:
        """QEMU's has to be the last descriptor: its end is what vhost-device-vsock ends by, and with it the callers' connections."""
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        self.fds = ()

    def take_call(self) -> bool:
        self.listener.accept()[0].close()
        return True

    def hang_up(self) -> None:
        super().hang_up()
        (self.folder / f"agent.sock_{READY_PORT}").unlink(missing_ok=True)

    def failure(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        return f"vhost-device-vsock ended with {code}: {' / '.join(console.tail(self.log, 3)) or 'it said nothing'}"

    def poke(self) -> None:
        """Make vhost-device-vsock look at what it has to send.

        Its vhost-user library drops a notification of the guest that comes before the queue is enabled; a request that
        waits then waits until something else happens, and a connection is something.
        """
        try:
            sockets.connect(self.path, timeout=1).close()
        except OSError:
            pass  # it has ended; `failure` will say so

    def close(self) -> None:
        self.listener.close()
        self.handed_over()
        lifetime.end(self.process)


def connect_to_helper(path: Path, process: "subprocess.Popen[bytes]", log: Path, who: str) -> socket.socket:
    """A connection to `process` once it listens, for QEMU to inherit. Raises InnkeeperError, with its last lines if it has ended."""
    deadline = time.monotonic() + DEVICE_SECONDS
    while True:
        try:
            return sockets.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):  # there are moments between a socket's name and its listening
            pass
        if process.poll() is not None:
            raise InnkeeperError(f"{who} did not start: {' / '.join(console.tail(log, 3)) or f'status {process.returncode}'}")
        if time.monotonic() > deadline:
            raise InnkeeperError(f"{who} made no socket within {DEVICE_SECONDS:.0f} s")
        time.sleep(0.002)
