"""A pod's network card in its VM: a tap device beside the pod's interface, each redirected to the other.

A helper process does it, because it has to enter the pod's network namespace and to import a
netlink library, which would stay in this process. It makes the tap at once, so that QEMU can start,
and the rest while the guest boots.
"""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from innkeeper.client import Agent
from innkeeper.errors import InnkeeperError
from innkeeper.shim import network_helper
from innkeeper.vm import Tap
from innkeeper.wire.pb import types_pb2

SECONDS = 15.0
MESSAGE_MAX = 256 << 10
GUEST_NAME = "eth0"


@dataclass(frozen=True)
class Addresses:
    """What the guest's card is to have: the addresses, routes and MTU of the pod's interface."""

    mac: str
    mtu: int
    addresses: tuple[tuple[int, str, int], ...] = field(default=())
    """IP version, address, prefix length."""
    routes: tuple[tuple[int, str, str], ...] = field(default=())
    """IP version, destination or empty for the default, gateway or empty."""

    def configure(self, agent: Agent, pci_path: str = "") -> None:
        """Set the guest's card up. One that was plugged in is awaited at `pci_path`. Raises RpcError."""
        family = {4: types_pb2.v4, 6: types_pb2.v6}
        addresses = [types_pb2.IPAddress(family=family[v], address=address, mask=str(prefix)) for v, address, prefix in self.addresses]
        agent.update_interface(
            types_pb2.Interface(
                device=GUEST_NAME, name=GUEST_NAME, IPAddresses=addresses, mtu=self.mtu, hwAddr=self.mac, devicePath=pci_path
            )
        )
        agent.update_routes(
            [types_pb2.Route(dest=dest, gateway=gateway, device=GUEST_NAME, family=family[v]) for v, dest, gateway in self.routes]
        )


class PodNetwork:
    """The helper process, and the tap that it has made. `tap` is None if the namespace has no interface."""

    def __init__(self, namespace: Path, folder: Path) -> None:
        """Make the tap in `namespace`. Errors of the helper go to a file in `folder`. Raises InnkeeperError."""
        self.tap: Tap | None = None
        self._log = folder / "network.log"
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(SECONDS)
        argv = [sys.executable, "-P", "-m", network_helper.__name__, str(namespace), str(far.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with far, open(self._log, "wb") as errors:
            self._helper = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, pass_fds=[far.fileno()]
            )
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_MAX, 1)
            if not data:
                raise self._failure()
            if fds:
                self.tap = Tap(fds[0], json.loads(data)["mac"], namespace)
        except (OSError, InnkeeperError) as error:
            self.close()
            raise error if isinstance(error, InnkeeperError) else self._failure() from error

    def connect(self) -> Addresses | None:
        """Return the pod's addresses, once the traffic reaches the tap. Raises InnkeeperError."""
        if self.tap is None:
            return None
        self._close_tap()  # QEMU has it
        try:
            found = json.loads(self._socket.recv(MESSAGE_MAX))
        except (OSError, ValueError) as error:
            raise self._failure() from error
        return Addresses(found["mac"], found["mtu"], tuple(map(tuple, found["addresses"])), tuple(map(tuple, found["routes"])))

    def _failure(self) -> InnkeeperError:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return InnkeeperError(f"the pod's network cannot be set up: {lines[-1] if lines else 'the helper process does not answer'}")

    def close(self) -> None:
        """End the helper, and close the tap if QEMU was not started. May be called twice."""
        self._close_tap()
        self._socket.close()
        self._helper.kill()
        self._helper.wait()

    def _close_tap(self) -> None:
        tap, self.tap = self.tap, None
        if tap is not None:
            os.close(tap.fd)
