"""Notifies the host that the agent listens.

The agent connects to the vsock port of the host that INNKEEPER_READY on the kernel command line
names. No bytes are sent: the connection is the message. A host that polls instead cannot know when
connecting is safe (an emulated vsock may exit when it is called before the guest's driver is set
up), and each attempt costs time.
"""

import _socket as socket  # the public module imports enum and selectors: too slow at start-up
import os

from agent import log, loop

VMADDR_CID_HOST = 2
SECONDS = 5.0
"""Seconds that the host may take to accept the connection."""


async def notify_ready(port: int) -> None:
    """Connect to `port` of the host and close the connection.

    A failure is logged and is no error: the host can connect to the agent nevertheless.
    """
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        with loop.timeout(SECONDS):
            try:
                sock.connect((VMADDR_CID_HOST, port))
            except BlockingIOError:
                await loop.writable(sock.fileno())
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
    except (OSError, TimeoutError) as error:
        log.warn(f"the host did not take the call to port {port}: {error}", "ready")
    finally:
        sock.close()
