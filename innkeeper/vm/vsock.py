"""Connect the host to the guest's ports by vsock: the kernel's, or vhost-device-vsock.

A back end provides properties for QEMU, an address for `innkeeper.client`, and a socket that is
readable when the guest reports that it is ready. `virtio_serial` has the one without vsock.
"""

import fcntl
import os
import socket
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from innkeeper.dial import connect_unix, listen_unix
from innkeeper.errors import InnkeeperError
from innkeeper.vm import child_processes, console

VHOST_VSOCK_SET_GUEST_CID = 0x4008AF60
READY_PORT = 1023
"""The port of host CID 2 that the guest calls.

With vhost-vsock any free port is used instead, because all guests share the host's port numbers.
"""
CREDIT = 28672
"""Bytes that the guest may send ahead.

With vhost-device-vsock's default of 65536, a 32 KiB message from the guest never arrives.
"""
DEVICE_SECONDS = 5.0
"""Seconds that a helper process may take to create its socket."""


class Backend(ABC):
    """The way to the ports of one VM.

    `chardev` and `device` are options of QEMU, `fds` are the descriptors it inherits, and
    `ready_port` is the port that the guest calls, or None if it reports otherwise. `channel` tells
    the guest what carries its ports, if not vsock.
    """

    chardev: str | None = None
    channel: str | None = None
    device: str
    fds: tuple[int, ...] = ()
    ready_port: int | None
    listener: socket.socket
    process: "subprocess.Popen[bytes] | None" = None
    """The helper process, if it takes one."""

    @abstractmethod
    def address(self, port: int | str) -> str:
        """Return the address of a port, for `innkeeper.client.connect`."""

    _inherited: socket.socket | None = None
    """QEMU's end of a connection."""

    def close_fds_after_spawn(self) -> None:
        """Close our copy of what QEMU inherits, so that the other end notices when QEMU ends."""
        if self._inherited is not None:
            self._inherited.close()
            self._inherited = None
        self.fds = ()

    def stop_listening(self) -> None:
        """Accept no more calls: from now on they would come from a container."""
        self.listener.close()

    @abstractmethod
    def accept_ready(self) -> bool:
        """Accept a call on `listener`. Return whether it came from the guest of this VM."""

    def failure(self) -> str | None:
        """Return why the back end no longer works, or None."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Release all resources."""


def kernel_works() -> bool:
    """Return whether this host's kernel has a vhost-vsock that works."""
    backend = KernelVsock.open()
    if backend is not None:
        backend.close()
    return backend is not None


class KernelVsock(Backend):
    """The host kernel's vhost-vsock (/dev/vhost-vsock, vhost_vsock.ko).

    The CID belongs to the process that holds the descriptor.
    """

    def __init__(self, fd: int, cid: int, listener: socket.socket) -> None:
        self.cid = cid
        self.fds = (fd,)
        self.device = f"vhost-vsock,guest-cid={cid},vhostfd={fd}"
        self.listener = listener
        self.ready_port = listener.getsockname()[1]

    @classmethod
    def open(cls) -> "KernelVsock | None":
        """Return the back end, or None if this host's vhost-vsock is missing or does not work."""
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

    def close_fds_after_spawn(self) -> None:
        """Keep the descriptor: it reserves the CID."""

    def accept_ready(self) -> bool:
        caller, (cid, _) = self.listener.accept()
        caller.close()
        return bool(cid == self.cid)  # all guests of a host share its port numbers

    def close(self) -> None:
        self.listener.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def take_cid(fd: int) -> int:
    """Give the vhost-vsock device `fd` a CID of its own and return it. Raises OSError.

    The kernel refuses a CID that another guest has, so random ones are tried.
    """
    for _ in range(64):
        cid = 0x10000 + int.from_bytes(os.urandom(4)) % 0x7FFE0000
        try:
            fcntl.ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, struct.pack("=Q", cid))
            return cid
        except OSError as error:
            last = error
    raise last


class UserVsock(Backend):
    r"""vhost-user-vsock: vhost-device-vsock serves the guest's queue.

    The host's side is unix sockets in the VM's folder. `agent.sock`: connect, send "CONNECT
    PORT\n", read "OK ...\n". `agent.sock_PORT`: the guest's calls to CID 2 arrive here.
    """

    ready_port = READY_PORT
    device = "vhost-user-vsock,chardev=vsock"
    process: "subprocess.Popen[bytes]"

    def __init__(self, folder: Path, program: Path, setpriv: Path) -> None:
        self.folder = folder
        self.log = folder / "vsock.log"
        self.path = folder / "agent.sock"
        self.listener = listen_unix(folder / f"agent.sock_{READY_PORT}")
        # Only the guest sees this CID: nothing outside this process uses it.
        argv = [str(program), "--guest-cid", "3", "--socket", "vsock.sock", "--uds-path", "agent.sock"]
        self.process = child_processes.spawn(setpriv, [*argv, "--tx-buffer-size", str(CREDIT)], folder=folder, log=self.log)
        try:
            queue = connect_to_helper(folder / "vsock.sock", self.process, self.log, "vhost-device-vsock")
        except BaseException:
            self.close()
            raise
        # vhost-device-vsock exits when it is closed, and the callers' connections end with it.
        self._inherited = queue
        self.fds = (queue.fileno(),)
        self.chardev = f"socket,id=vsock,fd={queue.fileno()}"

    def address(self, port: int | str) -> str:
        return f"hybrid://{self.path}:{port}"

    def accept_ready(self) -> bool:
        self.listener.accept()[0].close()
        return True

    def stop_listening(self) -> None:
        super().stop_listening()
        (self.folder / f"agent.sock_{READY_PORT}").unlink(missing_ok=True)

    def failure(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        return f"vhost-device-vsock ended with {code}: {' / '.join(console.tail(self.log, 3)) or 'it said nothing'}"

    def close(self) -> None:
        self.listener.close()
        self.close_fds_after_spawn()
        child_processes.end(self.process)


def connect_to_helper(path: Path, process: "subprocess.Popen[bytes]", log: Path, who: str) -> socket.socket:
    """Return a connection to `process`, once it listens, for QEMU to inherit.

    Raises InnkeeperError after DEVICE_SECONDS, or with its last lines if it has ended.
    """
    deadline = time.monotonic() + DEVICE_SECONDS
    while True:
        try:
            return connect_unix(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            # It has not called bind(2) or listen(2) yet.
            pass
        if process.poll() is not None:
            raise InnkeeperError(f"{who} did not start: {' / '.join(console.tail(log, 3)) or f'status {process.returncode}'}")
        if time.monotonic() > deadline:
            raise InnkeeperError(f"{who} made no socket within {DEVICE_SECONDS:.0f} s")
        time.sleep(0.002)
