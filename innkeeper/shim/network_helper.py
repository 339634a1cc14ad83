"""Make a tap in a pod's network namespace, and redirect the pod's interface to it and back.

`network` runs this as a process of its own: network_helper NAMESPACE SOCKET. It sends two messages on
the socket: the hardware address with the tap's descriptor, or `{}` if there is no interface, then
the addresses and routes.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from typing import Any

CLONE_NEWNET = 0x40000000
SIOCGIFHWADDR = 0x8927
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
ARPHRD_ETHER = 1
ETH_P_ALL = 3
INGRESS = 0xFFFF0000
RTPROT_KERNEL = 2
RT_TABLE_MAIN = 254
TAP = "innkeeper0"

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Do it. A failure goes to standard error."""
    namespace, number = sys.argv[1:]
    out = socket.socket(fileno=int(number))
    enter(namespace)
    found = interface()
    if found is None:
        out.send(b"{}")
        return
    name, mac = found
    tap = make_tap()
    socket.send_fds(out, [json.dumps({"mac": mac}).encode()], [tap])
    os.close(tap)
    out.send(json.dumps({"mac": mac, **redirect(name)}).encode())


def enter(namespace: str) -> None:
    """Enter a network namespace. Raises OSError."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    if _libc.setns(descriptor, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns", namespace)
    os.close(descriptor)


def interface() -> tuple[str, str] | None:
    """Return name and hardware address of the pod's interface, the first Ethernet one, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            answer = fcntl.ioctl(sock, SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
            kind, address = struct.unpack_from("=H6s", answer, 16)
            if kind == ARPHRD_ETHER and name != TAP:
                return name, ":".join(f"{byte:02x}" for byte in address)
    return None


def make_tap() -> int:
    """Return a new tap device, whose packets carry the header that lets the guest leave checksums to the host."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", TAP.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    return descriptor


def redirect(name: str) -> dict[str, Any]:
    """Redirect all packets between the interface `name` and the tap. Return its MTU, addresses and routes."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        pod, tap = (route.link_lookup(ifname=one)[0] for one in (name, TAP))
        mtu = route.get_links(pod)[0].get_attr("IFLA_MTU")
        route.link("set", index=tap, mtu=mtu, state="up")
        for one, other in ((pod, tap), (tap, pod)):
            route.tc("add", "ingress", index=one, handle=INGRESS)
            # u32, because kernels without NET_CLS_MATCHALL are about.
            action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": other}
            route.tc(
                *("add-filter", "u32"), index=one, parent=INGRESS, prio=1, protocol=ETH_P_ALL, target=0, keys=["0x0/0x0+0"], action=action
            )
        return {"mtu": mtu, "addresses": _addresses(route, pod), "routes": _routes(route, pod)}


def _addresses(route: Any, index: int) -> list[tuple[int, str, int]]:
    """Return IP version, address and prefix length of each address but link-local ones, which the guest makes itself."""
    found = []
    for address in route.get_addr(index=index):
        text = address.get_attr("IFA_ADDRESS")
        if not text.startswith("fe80:"):
            found.append((_version(address["family"]), text, address["prefixlen"]))
    return found


def _routes(route: Any, index: int) -> list[tuple[int, str, str]]:
    """Return IP version, destination and gateway of each route of the main table that the kernel did not make itself."""
    found = []
    for entry in route.get_routes(table=RT_TABLE_MAIN):
        if entry.get_attr("RTA_OIF") == index and entry["proto"] != RTPROT_KERNEL:
            destination = entry.get_attr("RTA_DST")
            text = f"{destination}/{entry['dst_len']}" if destination else ""
            found.append((_version(entry["family"]), text, entry.get_attr("RTA_GATEWAY") or ""))
    return found


def _version(family: int) -> int:
    return 6 if family == socket.AF_INET6 else 4


if __name__ == "__main__":
    main()
