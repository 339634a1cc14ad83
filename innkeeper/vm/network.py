"""QEMU's user network: no root needed; ports of the host are forwarded to the guest, TCP and UDP.

The guest has 10.0.2.15/24, its gateway (also the host) is 10.0.2.2, its name server 10.0.2.3.
"""

import errno
import re
import socket
from collections.abc import Sequence
from dataclasses import replace

from innkeeper.errors import InnkeeperError
from innkeeper.vm.config import Forward

GUEST_ADDRESS = "10.0.2.15"
PREFIX_LENGTH = 24
GATEWAY = "10.0.2.2"
NAME_SERVER = "10.0.2.3"
MAC = "52:54:00:12:34:56"

_PORT = re.compile(r"(?:(?P<address>[0-9.]*|localhost):)?(?:(?P<host>\d*):)?(?P<guest>\d+)(?:/(?P<protocol>\w+))?")


def parse_forward(text: str) -> list[Forward]:
    """Forwards of one `-p` value: `[[IP:]HOSTPORT:]PORT[/tcp|udp]`, ranges `8000-8002:80-82`. HOSTPORT empty: any free port."""
    expanded = _expand(text)
    forwards = []
    for one in expanded:
        match = _PORT.fullmatch(one)
        if match is None:
            raise InnkeeperError(f"-p {text}: not of the form [[IP:]HOSTPORT:]PORT[/udp]", hint="for instance -p 127.0.0.1:8080:80")
        address, host = match["address"] or "", match["host"]
        if host is None and address.isdigit():  # "8080:80": what looks like an address is the host's port
            address, host = "", address
        address = "127.0.0.1" if address == "localhost" else address
        if address:
            _check_address(address, text)
        forwards.append(Forward(match["protocol"] or "tcp", address, int(host or 0), int(match["guest"])))
    return forwards


def _expand(text: str) -> list[str]:
    """`A-B:C-D/p` as a list of single ports."""
    ranges = re.fullmatch(r"(?P<head>(?:[0-9.]+|localhost):)?(?P<a>\d+)-(?P<b>\d+):(?P<c>\d+)-(?P<d>\d+)(?P<tail>/\w+)?", text)
    if ranges is None:
        return [text]
    first, last, start, stop = (int(ranges[k]) for k in "abcd")
    if last - first != stop - start or last < first:
        raise InnkeeperError(f"-p {text}: the two ranges have different lengths")
    return [f"{ranges['head'] or ''}{first + i}:{start + i}{ranges['tail'] or ''}" for i in range(last - first + 1)]


def _check_address(address: str, text: str) -> None:
    try:
        socket.inet_pton(socket.AF_INET, address)
    except OSError:
        raise InnkeeperError(f"-p {text}: {address} is not an IPv4 address") from None


def settle(forwards: Sequence[Forward]) -> tuple[Forward, ...]:
    """`forwards` with a free port in place of each 0. Raises InnkeeperError naming the first port that cannot be had.

    QEMU binds them a moment later; what fails then is explained by `explain`.
    """
    held: list[socket.socket] = []
    try:
        return tuple(_settle_one(forward, held) for forward in forwards)
    finally:
        for sock in held:
            sock.close()


def _settle_one(forward: Forward, held: list[socket.socket]) -> Forward:
    kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    held.append(sock)
    if forward.protocol == "tcp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as QEMU does: a port in TIME_WAIT is free
    try:
        sock.bind((forward.host_address, forward.host_port))
    except OSError as error:
        raise _refusal(forward, error) from None
    return replace(forward, host_port=sock.getsockname()[1])


def _refusal(forward: Forward, error: OSError) -> InnkeeperError:
    port = f"port {forward.host_port}/{forward.protocol}"
    if error.errno == errno.EADDRINUSE:
        return InnkeeperError(f"{port} of the host is in use", hint="choose another with -p, or stop what uses it: ss -lntup")
    if error.errno == errno.EACCES:
        return InnkeeperError(f"{port} of the host needs root", hint="choose one above 1023 with -p")
    if error.errno == errno.EADDRNOTAVAIL:
        return InnkeeperError(f"{forward.host_address} is not an address of this host")
    return InnkeeperError(f"{port} of the host cannot be used: {error.strerror}")


def explain(stderr: str) -> str | None:
    """QEMU's complaint about a forward as a sentence, or None if it did not complain about one."""
    match = re.search(r"Could not set up host forwarding rule '(tcp|udp):([^:]*):(\d+)-", stderr)
    return f"port {match[3]}/{match[1]} of the host is in use" if match else None


def netdev(forwards: Sequence[Forward]) -> str:
    """The value of QEMU's -netdev."""
    rules = [f",hostfwd={f.protocol}:{f.host_address}:{f.host_port}-:{f.guest_port}" for f in forwards]
    return "user,id=net" + "".join(rules)
