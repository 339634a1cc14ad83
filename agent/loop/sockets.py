"""Operations on sockets that park the task instead of blocking: listen, accept, send, receive."""

import _socket as socket

from agent import log
from agent.loop.descriptors import Socket
from agent.loop.waits import readable, sleep, writable

BUFFER_SIZE = 1 << 16
"""Most bytes that one read returns."""
VMADDR_CID_ANY = 0xFFFFFFFF
VMADDR_CID_HOST = 2
BACKLOG = 128
"""Length of the accept queue: the shim redials in a tight loop while the guest boots."""
ACCEPT_PAUSE = 0.1
"""Seconds until the next attempt after accept(2) has failed."""


def listen(address: str) -> Socket:
    """Return a listening socket for an address.

    The address is `vsock://CID:PORT`, where the CID -1 means any, or `unix:///path` or
    `unix://@abstract`. Raises OSError, and ValueError for another kind of address.
    """
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
    """Return the next client of one of the agent's ports. Raises DescriptorClosed.

    A vsock connection from a peer other than the host is closed. vsock has no namespaces, so a
    container without a seccomp filter can connect to the ports of the agent; the peer's CID is the
    only thing that tells it from the host, and nothing in the guest has the host's CID. An error
    of accept(2), as of a client that has left already or a lack of descriptors, is logged and does
    not end the service.
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
    """Return the bytes that have arrived, at most BUFFER_SIZE, or b"" at the end of the stream.

    Raises OSError when the client is gone.
    """
    while True:
        try:
            return client.recv(BUFFER_SIZE)
        except BlockingIOError:
            await readable(client)
