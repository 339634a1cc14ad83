"""Sockets that never block: the next client, all of what is to be sent, what has come."""

import _socket as socket

from agent import log
from agent.loop.descriptors import Socket
from agent.loop.waits import readable, sleep, writable

CHUNK = 1 << 16
VMADDR_CID_ANY = 0xFFFFFFFF
VMADDR_CID_HOST = 2
BACKLOG = 128
"""The shim redials in a tight loop while the guest boots."""
ACCEPT_PAUSE = 0.1
"""Seconds before the next attempt when a client could not be accepted."""


def listen(address: str) -> Socket:
    """Return a listening socket for `vsock://CID:PORT` (CID -1: any) or `unix:///path`, `unix://@abstract`. Raises OSError, ValueError."""
    scheme, _, rest = address.partition("://")
    target: object
    if scheme == "vsock":
        cid, _, port = rest.partition(":")
        family, target = socket.AF_VSOCK, (VMADDR_CID_ANY if int(cid) == -1 else int(cid), int(port))
    elif scheme == "unix" and rest:
        family, target = socket.AF_UNIX, "\0" + rest[1:] if rest.startswith("@") else rest
    else:
        raise ValueError(f"not a vsock:// or unix:// address: {address}")
    sock = Socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind(target)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


async def accept(listener: Socket) -> Socket:
    """Return the next client of any of the agent's ports. Raises DescriptorClosed.

    Over vsock a peer that is not the host is hung up on: vsock has no namespaces, so a container without a filter may call, and nothing
    in the guest is the host. A client that has left again, or a lack of descriptors, does not end the service.
    """
    while True:
        await readable(listener)
        try:
            fd, peer = listener._accept()  # type: ignore[attr-defined]  # what socket.accept calls
        except BlockingIOError:
            continue
        except OSError as error:
            log.warn(f"accept: {error}", "rpc")
            await sleep(ACCEPT_PAUSE)
            continue
        client = Socket(listener.family, listener.type, 0, fd)
        if listener.family == socket.AF_VSOCK and peer[0] != VMADDR_CID_HOST:
            log.warn(f"connection from vsock {peer[0]}, which is not the host: closed", "rpc")
            client.close()
            continue
        client.setblocking(False)
        return client


async def send_all(client: Socket, data: bytes) -> None:
    """Send all of `data`. Raises OSError when the client is gone."""
    view = memoryview(data)
    while view:
        try:
            view = view[client.send(view) :]
        except BlockingIOError:
            await writable(client)


async def receive(client: Socket) -> bytes:
    """Return what has come; b"" at the end. Raises OSError when the client is gone."""
    while True:
        try:
            return client.recv(CHUNK)
        except BlockingIOError:
            await readable(client)
