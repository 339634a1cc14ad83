"""Operations on sockets that park the task instead of blocking: listen, accept, send, receive."""

import _socket as socket
import os
import sys

from agent import log
from agent.loop.descriptors import Socket, socket_pair
from agent.loop.waits import readable, sleep, writable

BUFFER_SIZE = 1 << 16
"""Most bytes that one read returns."""
VMADDR_CID_ANY = 0xFFFFFFFF
VMADDR_CID_HOST = 2
BACKLOG = 128
"""Length of the accept queue: the shim redials in a tight loop while the guest boots."""
ACCEPT_PAUSE = 0.1
"""Seconds until the next attempt after accept(2) has failed."""
VIRTIO_SERIAL = os.environ.get("INNKEEPER_CHANNEL") == "virtio-serial"
"""Whether the guest's ports are reached over a virtio-serial port, and not by vsock."""
_connectors: dict[int, Socket] = {}
"""For each port that is listened on without vsock: where its connections are handed over."""


def listen(address: str) -> Socket:
    """Return a listening socket for an address.

    The address is `vsock://CID:PORT`, where the CID -1 means any, or `unix:///path` or
    `unix://@abstract`. Raises OSError, and ValueError for another kind of address.
    """
    scheme, _, rest = address.partition("://")
    target: object
    if scheme == "vsock" and VIRTIO_SERIAL:
        listener, _connectors[int(rest.partition(":")[2])] = socket_pair(socket.SOCK_SEQPACKET)
        return listener
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


def connect_locally(port: int) -> Socket:
    """Return a connection to the service of a port, on which it listens without vsock.

    The other end is passed to the service (SCM_RIGHTS, unix(7)), so the port has no name by which a
    container could connect to it. Raises OSError, BlockingIOError included: the service has
    connections enough to accept.
    """
    if (connector := _connectors.get(port)) is None:
        raise ConnectionRefusedError
    ours, theirs = socket_pair()
    with theirs:
        try:
            connector.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, theirs.fileno().to_bytes(4, sys.byteorder))])
        except BaseException:
            ours.close()
            raise
    return ours


def _next_client(listener: Socket) -> tuple[Socket, int]:
    """Return a client that waits and its CID, which is the host's without vsock. Raises OSError."""
    if listener.type == socket.SOCK_SEQPACKET:
        _, passed, _, _ = listener.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not passed:
            raise OSError("a connection without its socket")
        return Socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, int.from_bytes(passed[0][2], sys.byteorder)), VMADDR_CID_HOST
    fd, peer = listener._accept()  # type: ignore[attr-defined]  # what socket.accept calls
    client = Socket(listener.family, listener.type, 0, fd)
    return client, peer[0] if listener.family == socket.AF_VSOCK else VMADDR_CID_HOST


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
            client, cid = _next_client(listener)
        except BlockingIOError:
            continue
        except OSError as error:
            log.warn(f"accept: {error}", "rpc")
            await sleep(ACCEPT_PAUSE)
            continue
        if cid != VMADDR_CID_HOST:
            log.warn(f"connection from vsock {cid}, which is not the host: closed", "rpc")
            client.close()
            continue
        client.setblocking(False)
        return client


async def send_all(client: Socket, data: "bytes | memoryview") -> None:
    """Send all of `data`. Raises OSError when the client is gone."""
    view = memoryview(data)
    while view:
        try:
            view = view[client.send(view) :]
        except BlockingIOError:
            await writable(client)


async def receive(client: Socket, most: int = BUFFER_SIZE) -> bytes:
    """Return the bytes that have arrived, at most `most`, or b"" at the end of the stream.

    Raises OSError when the client is gone.
    """
    while True:
        try:
            return client.recv(most)
        except BlockingIOError:
            await readable(client)
