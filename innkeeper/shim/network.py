"""A pod's network cards in its VM: a tap device for each interface, redirected to each other.

A helper process does it, because it has to enter the pod's network namespace and to import a
netlink library, which would stay in this process. It makes the taps at once, so that QEMU can
start, and the rest while the guest boots.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper.client import Agent
from innkeeper.errors import InnkeeperError
from innkeeper.shim import log, network_helper
from innkeeper.shim.port_forward import PortForward
from innkeeper.vm import Tap
from innkeeper.wire.pb import types_pb2

SECONDS = 15.0
MESSAGE_MAX = 256 << 10
INTERFACES_MAX = network_helper.INTERFACES_MAX
FAMILIES = {4: types_pb2.v4, 6: types_pb2.v6}


@dataclass(frozen=True)
class Route:
    """A route of the kernel, empty or 0 where it has nothing.

    `destination` is empty for the default route.
    """

    version: int
    destination: str
    gateway: str = ""
    source: str = ""
    scope: int = 0
    flags: int = 0
    mtu: int = 0


@dataclass(frozen=True)
class Link:
    """The settings of a card of the guest.

    Name, addresses, routes, static neighbours and MTU are those of the pod's interface.
    """

    name: str
    mac: str
    mtu: int
    addresses: tuple[tuple[int, str, int], ...] = ()
    """IP version, address, prefix length."""
    routes: tuple[Route, ...] = ()
    neighbours: tuple[tuple[int, str, str], ...] = ()
    """IP version, address, hardware address."""

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Link":
        """Return the link that the helper has found."""
        rows = {name: tuple(map(tuple, found[name])) for name in ("addresses", "neighbours")}
        return cls(found["name"], found["mac"], found["mtu"], routes=tuple(Route(**route) for route in found["routes"]), **rows)


def configure(links: Sequence[Link], agent: Agent, pci_path: str = "") -> None:
    """Set the guest's cards up.

    One that was plugged in is awaited at `pci_path`. Raises RpcError.
    """
    for link in links:
        addresses = [_address(version, address, str(prefix)) for version, address, prefix in link.addresses]
        agent.update_interface(
            types_pb2.Interface(device=link.name, name=link.name, IPAddresses=addresses, mtu=link.mtu, hwAddr=link.mac, devicePath=pci_path)
        )
    routes = [
        types_pb2.Route(
            dest=route.destination,
            gateway=route.gateway,
            device=link.name,
            source=route.source,
            scope=route.scope,
            family=FAMILIES[route.version],
            flags=route.flags,
            mtu=route.mtu,
        )
        for link in links
        for route in link.routes
    ]
    if routes:
        agent.update_routes(routes)
    neighbours = [
        types_pb2.ARPNeighbor(toIPAddress=_address(version, address, ""), device=link.name, lladdr=mac)
        for link in links
        for version, address, mac in link.neighbours
    ]
    if neighbours:
        agent.add_arp_neighbors(neighbours)


def _address(version: int, address: str, mask: str) -> types_pb2.IPAddress:
    return types_pb2.IPAddress(family=FAMILIES[version], address=address, mask=mask)


class PodNetwork:
    """The helper process, and its taps: one for each interface of the namespace."""

    def __init__(self, namespace: str, folder: Path, prepare: Callable[[int], None] = lambda pid: None) -> None:
        """Make the taps in `namespace`, or in a new one if that is empty.

        Errors of the helper go to a file in `folder`. Before they are made, `prepare` is called
        with the id of a process that is in the namespace, and may put interfaces there. Raises
        InnkeeperError, and what `prepare` raises.
        """
        self.taps: tuple[Tap, ...] = ()
        self.forward: PortForward | None = None
        self._namespace = -1
        self._log = folder / "network.log"
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(SECONDS)
        argv = [sys.executable, "-P", "-m", network_helper.__name__, namespace, str(far.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with far, open(self._log, "wb") as errors:
            self._helper = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, pass_fds=[far.fileno()]
            )
        try:
            self._receive()
            prepare(self._helper.pid)
            # Not named by the helper's id: it may have ended before QEMU is there.
            self._namespace = os.open(f"/proc/{self._helper.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            place = Path(f"/proc/{os.getpid()}/fd/{self._namespace}")
            self._socket.send(b"1")
            macs, fds = self._receive()
            self.taps = tuple(Tap(fd, mac, place) for fd, mac in zip(fds, macs, strict=True))
        except BaseException:
            self.close()
            raise

    def _receive(self) -> tuple[Any, list[int]]:
        """Return the helper's next message and the descriptors in it. Raises InnkeeperError."""
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_MAX, INTERFACES_MAX)
            return json.loads(data), fds
        except (OSError, ValueError) as error:  # it says nothing more if it has failed
            raise self._failure() from error

    def connect(self) -> tuple[Link, ...]:
        """Return what the pod's interfaces have, once their traffic reaches the taps.

        Raises InnkeeperError.
        """
        if not self.taps:
            return ()
        self._close_taps()  # QEMU has them
        found, fds = self._receive()
        if fds:
            self.forward = PortForward([socket.socket(fileno=fd) for fd in fds[1:]], fds[0])
        else:
            log.error(f"ports of the pod cannot be forwarded: {found['no_listener']}")
        return tuple(map(Link.of, found["links"]))

    def _failure(self) -> InnkeeperError:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return InnkeeperError(f"the pod's network cannot be set up: {lines[-1] if lines else 'the helper process does not answer'}")

    def close(self) -> None:
        """End the helper, and close the taps if QEMU was not started. May be called twice."""
        self._close_taps()
        if self.forward is not None:
            self.forward.close()
        self._socket.close()
        self._helper.kill()
        self._helper.wait()

    def _close_taps(self) -> None:
        taps, self.taps = self.taps, ()
        for tap in taps:
            os.close(tap.fd)
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1
