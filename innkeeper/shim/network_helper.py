"""Make a tap for each interface of a pod's network namespace, redirected to each other.

`network` runs this as a process of its own: network_helper NAMESPACE SOCKET. NAMESPACE is a path,
or empty for a new one. It sends an empty object once it is there, and goes on with the answer. Then
it sends two messages: the interfaces' hardware addresses with the taps' descriptors, and, if there
are any, what each interface has of addresses, routes and static neighbours, with the descriptors of
`localhost_listener`, or the reason why there are none.
"""

import fcntl
import json
import os
import socket
import struct
import sys
from typing import Any

from innkeeper.libc import check, libc
from innkeeper.shim import localhost_listener

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, SIOCGIFHWADDR = 0x8914, 0x8927
IFF_UP = 0x1
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
ARPHRD_ETHER = 1
ETH_P_ALL = 3
INGRESS = 0xFFFF0000
RTPROT_KERNEL = 2
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTNH_F_ONLINK = 4
NUD_PERMANENT = 0x80
TAP = "innkeeper"
"""Names of taps begin so."""
INTERFACES_MAX = 16


def main() -> None:
    """Do it. A failure goes to standard error."""
    namespace, number = sys.argv[1:]
    out = socket.socket(fileno=int(number))
    enter(namespace)
    out.send(b"{}")
    out.recv(1)
    found = interfaces()
    if len(found) > INTERFACES_MAX:
        raise OSError(f"{len(found)} interfaces: a VM takes {INTERFACES_MAX}")
    taps = [make_tap(f"{TAP}{index}") for index in range(len(found))]
    socket.send_fds(out, [json.dumps([mac for _, mac in found]).encode()], taps)
    for tap in taps:
        os.close(tap)
    if not found:
        return
    links = redirect([name for name, _ in found])
    try:
        listeners, link = localhost_listener.open_listeners()
    except OSError as error:
        out.send(json.dumps({"links": links, "no_listener": str(error)}).encode())
    else:
        socket.send_fds(out, [json.dumps({"links": links}).encode()], [link, *(one.fileno() for one in listeners)])


def enter(namespace: str) -> None:
    """Enter a network namespace, or a new one if there is no path. Raises OSError."""
    if not namespace:
        check(libc.unshare(CLONE_NEWNET), "unshare")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # as runc does
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))
        return
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    check(libc.setns(descriptor, CLONE_NEWNET), "setns", namespace)
    os.close(descriptor)


def interfaces() -> list[tuple[str, str]]:
    """Return name and hardware address of each Ethernet interface of the pod, oldest first.

    One without an address is none: the drivers of GRE put such a gretap0 into every namespace.
    """
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in sorted(socket.if_nameindex()):
            answer = fcntl.ioctl(sock, SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
            kind, address = struct.unpack_from("=H6s", answer, 16)
            if kind == ARPHRD_ETHER and any(address) and not name.startswith(TAP):
                found.append((name, ":".join(f"{byte:02x}" for byte in address)))
    return found


def make_tap(name: str) -> int:
    """Return a new tap device.

    Its packets carry the header that lets the guest leave checksums to the host.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    return descriptor


def redirect(names: list[str]) -> list[dict[str, Any]]:
    """Redirect all packets between each interface and its tap. Return what each interface has."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        links = {link["index"]: link for link in route.get_links()}
        indexes = {link.get_attr("IFLA_IFNAME"): index for index, link in links.items()}
        found = []
        for number, name in enumerate(names):
            pod, tap = indexes[name], indexes[f"{TAP}{number}"]
            mtu = links[pod].get_attr("IFLA_MTU")
            route.link("set", index=tap, mtu=mtu, state="up")
            for one, other in ((pod, tap), (tap, pod)):
                _redirect(route, one, other)
            found.append(
                {"name": name, "mac": links[pod].get_attr("IFLA_ADDRESS"), "mtu": mtu}
                | {"addresses": _addresses(route, pod), "routes": _routes(route, pod), "neighbours": _neighbours(route, pod)}
            )
        return found


def _redirect(route: Any, one: int, other: int) -> None:
    """Send all that arrives at a link out of the other.

    By u32, because kernels without NET_CLS_MATCHALL are about.
    """
    route.tc("add", "ingress", index=one, handle=INGRESS)
    action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": other}
    route.tc("add-filter", "u32", index=one, parent=INGRESS, prio=1, protocol=ETH_P_ALL, target=0, keys=["0x0/0x0+0"], action=action)


def _addresses(route: Any, index: int) -> list[tuple[int, str, int]]:
    """Return IP version, address and prefix length of each address.

    Link-local ones are left out: the guest makes them itself.
    """
    found = []
    for address in route.get_addr(index=index):
        text = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
        if not text.startswith("fe80:"):
            found.append((_version(address["family"]), text, address["prefixlen"]))
    return found


def _routes(route: Any, index: int) -> list[dict[str, Any]]:
    """Return each route of the main table, as `network.Route` has it, but the kernel's own."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in route.get_routes(family=family, table=RT_TABLE_MAIN):
            if entry.get_attr("RTA_MULTIPATH"):
                raise OSError("a route with several gateways cannot be given to a VM")
            if entry.get_attr("RTA_OIF") != index or entry["proto"] == RTPROT_KERNEL or entry["type"] != RTN_UNICAST:
                continue
            destination, metrics = entry.get_attr("RTA_DST"), entry.get_attr("RTA_METRICS")
            found.append(
                {
                    "version": _version(family),
                    "destination": f"{destination}/{entry['dst_len']}" if destination else "",
                    "gateway": entry.get_attr("RTA_GATEWAY") or "",
                    "source": entry.get_attr("RTA_PREFSRC") or "",
                    "scope": entry["scope"],
                    "flags": entry["flags"] & RTNH_F_ONLINK,
                    "mtu": (metrics.get_attr("RTAX_MTU") or 0) if metrics else 0,
                }
            )
    return found


def _neighbours(route: Any, index: int) -> list[tuple[int, str, str]]:
    """Return IP version, address and hardware address of each permanent neighbour.

    The guest finds the others.
    """
    found = []
    for entry in route.get_neighbours(ifindex=index):
        address, mac = entry.get_attr("NDA_DST"), entry.get_attr("NDA_LLADDR")
        if entry["state"] & NUD_PERMANENT and address and mac:
            found.append((_version(entry["family"]), address, mac))
    return found


def _version(family: int) -> int:
    return 6 if family == socket.AF_INET6 else 4


if __name__ == "__main__":
    main()
