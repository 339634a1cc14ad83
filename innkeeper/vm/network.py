"""QEMU's user network, which needs no root and forwards TCP and UDP ports of the host.

The guest has 10.0.2.15/24. Its gateway, which is also the host, is 10.0.2.2, and its name server is
10.0.2.3. Ports in IPv6 are forwarded by `port_forward_ipv6`.
"""

import errno
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from innkeeper.errors import InnkeeperError
from innkeeper.vm.config import Forward

GUEST_ADDRESS = "10.0.2.15"
PREFIX_LENGTH = 24
GATEWAY = "10.0.2.2"
NAME_SERVER = "10.0.2.3"
MAC = "52:54:00:12:34:56"

ATTEMPTS = 20
"""Free ports to try until one is free in both IPv4 and IPv6."""


class PortError(InnkeeperError):
    """A port of the host cannot be had: the user's choice is at fault, and no other VM gets it."""


@dataclass(frozen=True)
class ResolvedPorts:
    """The result of `resolve_ports`.

    `forwards` are those asked for, with a free port in place of each 0. `rules` are what QEMU
    forwards, all in IPv4. `listeners` are pairs of a bound IPv6 socket, which the caller has to
    close, and the port of QEMU to relay it to (see `port_forward_ipv6`).
    """

    forwards: tuple[Forward, ...] = ()
    rules: tuple[Forward, ...] = ()
    listeners: tuple[tuple[socket.socket, int], ...] = ()


def resolve_ports(forwards: Sequence[Forward]) -> ResolvedPorts:
    """Choose the ports of the host for `forwards`. Raises InnkeeperError naming the first failure.

    A forward without an address covers all addresses of the host, IPv4 and IPv6, as docker's does.
    QEMU's ports stay bound here until all are chosen, so that no two forwards get the same one.
    QEMU binds its own ports a moment later, after they are released. `explain` turns a failure of
    that into a message. The IPv6 sockets stay bound and are returned.
    """
    held: list[socket.socket] = []
    listeners: list[tuple[socket.socket, int]] = []
    done: list[Forward] = []
    rules: list[Forward] = []
    try:
        for forward in forwards:
            resolved, rule, listener = _resolve_one(forward, held)
            done.append(resolved)
            rules.append(rule)
            if listener is not None:
                listeners.append((listener, rule.host_port))
    except BaseException:
        for listener, _ in listeners:
            listener.close()
        raise
    finally:
        for sock in held:
            sock.close()
    return ResolvedPorts(tuple(done), tuple(rules), tuple(listeners))


def _resolve_one(forward: Forward, held: list[socket.socket]) -> tuple[Forward, Forward, socket.socket | None]:
    """Return the forward with its port, QEMU's part of it, and the IPv6 socket or None.

    The sockets that reserve QEMU's ports go into `held`.
    """
    if ":" in forward.host_address:
        listener = _bind(forward, socket.AF_INET6)
        resolved = replace(forward, host_port=listener.getsockname()[1])
        inner = replace(forward, host_address="127.0.0.1", host_port=0)
        held.append(_bind(inner, socket.AF_INET))
        return resolved, replace(inner, host_port=held[-1].getsockname()[1]), listener
    if forward.host_address or not _has_ipv6():
        held.append(_bind(forward, socket.AF_INET))
        resolved = replace(forward, host_port=held[-1].getsockname()[1])
        return resolved, resolved, None
    for attempt in range(ATTEMPTS):
        held.append(_bind(forward, socket.AF_INET))
        resolved = replace(forward, host_port=held[-1].getsockname()[1])
        try:
            return resolved, resolved, _bind(resolved, socket.AF_INET6)
        except InnkeeperError:
            if forward.host_port or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt raises")


def _has_ipv6() -> bool:
    """Return whether this host can listen on IPv6 at all. Without it docker leaves IPv6 out too."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def _bind(forward: Forward, family: int) -> socket.socket:
    """Return a socket bound to the forward's port. Raises InnkeeperError.

    For TCP it also listens, which is what detects that another process listens there. An IPv6
    socket is IPv6 only, because QEMU takes the same port in IPv4.
    """
    kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise _refusal(forward, error) from None
    if forward.protocol == "tcp":
        # As QEMU does: a port in TIME_WAIT counts as free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((forward.host_address or ("::" if family == socket.AF_INET6 else ""), forward.host_port))
        if forward.protocol == "tcp":
            sock.listen(128)  # SO_REUSEADDR lets two sockets bind the port, but only one can listen
    except OSError as error:
        sock.close()
        raise _refusal(forward, error) from None
    return sock


def _refusal(forward: Forward, error: OSError) -> PortError:
    """Return the error for a port that cannot be bound."""
    port = f"-p: port {forward.host_port}/{forward.protocol}"
    if error.errno == errno.EADDRINUSE:
        return PortError(f"{port} of the host is in use", hint="choose another with -p, or stop what uses it: ss -lntup")
    if error.errno == errno.EACCES:
        return PortError(f"{port} of the host needs root", hint="choose one above 1023 with -p")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return PortError(f"-p: {forward.host_address} is not an address of this host")
    return PortError(f"{port} of the host cannot be used: {error.strerror}")


def explain(stderr: str) -> str | None:
    """Return QEMU's complaint about a forward as a sentence, or None if it has none."""
    match = re.search(r"Could not set up host forwarding rule '(tcp|udp):([^:]*):(\d+)-", stderr)
    return f"-p: port {match[3]}/{match[1]} of the host is in use" if match else None


def rule(forward: Forward) -> str:
    """Return a forward as QEMU writes it, in `-netdev` and in `hostfwd_add`."""
    return f"{forward.protocol}:{forward.host_address}:{forward.host_port}-:{forward.guest_port}"


def netdev(forwards: Sequence[Forward]) -> str:
    """Return the value of QEMU's -netdev."""
    return "user,id=net" + "".join(f",hostfwd={rule(forward)}" for forward in forwards)
