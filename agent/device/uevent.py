"""Receiving the kernel's device events (netlink family KOBJECT_UEVENT; kernel docs "uevent")."""

import _socket as socket

from agent.loop import Socket

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
RECEIVE_BYTES = 64 * 1024
BUFFER_BYTES = 4 * 1024 * 1024


def parse(datagram: bytes) -> str | None:
    """Return the action of a datagram: `action@devpath`, then KEY=value pairs, NUL after each.

    Returns None for a datagram that has another format or is truncated.
    """
    first, *pairs = datagram.split(b"\0")
    if b"@" not in first or not datagram.endswith(b"\0"):
        return None
    values: dict[str, str] = {}
    for pair in pairs[:-1]:
        key, equals, value = pair.partition(b"=")
        if not equals:
            return None
        values[key.decode(errors="surrogateescape")] = value.decode(errors="surrogateescape")
    if not values.get("ACTION") or not values.get("DEVPATH", "").startswith("/"):
        return None
    return values["ACTION"]


def open_socket() -> Socket:
    """Return a non-blocking socket that receives the kernel's events. Raises OSError."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    events = Socket(socket.AF_NETLINK, kind, NETLINK_KOBJECT_UEVENT)
    try:
        events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        events.bind((0, KERNEL_GROUP))
    except OSError:
        events.close()
        raise
    return events


def receive(events: Socket) -> str | None:
    """Return the action of the next event, or None for a datagram that is not a kernel event.

    Raises BlockingIOError if nothing is queued, and OSError ENOBUFS if events were lost.
    """
    # The kernel sends from port 0 (netlink(7)). A datagram from another port comes from a process.
    datagram, sender = events.recvfrom(RECEIVE_BYTES)
    return parse(datagram) if sender[0] == 0 else None
