"""The channel to a guest on a host without vhost-vsock: a virtio-serial port."""

import socket
from pathlib import Path

from innkeeper.dial import listen_unix
from innkeeper.vm.config import HostPrograms
from innkeeper.vm.serial_relay import SerialRelay
from innkeeper.vm.vsock import Backend, KernelVsock, UserVsock


def open_backend(folder: Path, host: HostPrograms) -> Backend:
    """Return the back end for a VM: the kernel's vsock if it works, else a virtio-serial port.

    vhost-device-vsock is used if `host` has it. Raises InnkeeperError.
    """
    if (kernel := KernelVsock.open()) is not None:
        return kernel
    if host.vhost_device_vsock is not None:
        return UserVsock(folder, host.vhost_device_vsock, host.setpriv)
    return VirtioSerial(folder)


class VirtioSerial(Backend):
    """A virtio-serial port with the guest's ports multiplexed on it (see `serial_relay`).

    `agent.sock` in the VM's folder: connect, send "CONNECT PORT", read "OK PORT".
    """

    ready_port = None
    channel = "virtio-serial"
    device = "virtio-serial,max_ports=2"

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        """Make the port. `resume`: the guest was saved while another process had it."""
        self.path = folder / "agent.sock"
        near, far = socket.socketpair()
        self.listener, ready = socket.socketpair()
        self._inherited = far
        self._relay = SerialRelay(listen_unix(self.path), near, ready, resume=resume)
        self.fds = (far.fileno(),)
        self.chardev = f"socket,id=vsock,fd={far.fileno()}"

    def address(self, port: int | str) -> str:
        return f"hybrid://{self.path}:{port}"

    def accept_ready(self) -> bool:
        return True

    def failure(self) -> str | None:
        return self._relay.failure

    def quiesce(self) -> None:
        """Send no more until `resume_sending`, so that the guest can be saved. Raises OSError."""
        self._relay.quiesce()

    def resume_sending(self) -> None:
        """Go on after `quiesce`."""
        self._relay.resume_sending()

    def close(self) -> None:
        self.listener.close()
        self.close_fds_after_spawn()
        self._relay.close()
        self.path.unlink(missing_ok=True)
