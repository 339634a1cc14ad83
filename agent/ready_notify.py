"""Tells the host that the agent listens, by a connection to the port that the kernel's word INNKEEPER_READY names.

No bytes are sent: that the connection comes is the message. A host that polls cannot know when dialling is safe (an emulated
vsock may end when it is dialled before the guest's driver is set up), and pays for every poll.
"""

import _socket as socket  # the public module imports enum and selectors, which start-up does without
import os

from agent import log, loop

VMADDR_CID_HOST = 2
SECONDS = 5.0
"""How long the host may take to accept."""


async def call_host(port: int) -> None:
    """Connect to the host's `port` and hang up. Nobody there is no error: the host may dial all the same."""
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
