"""SCMP_ACT_NOTIFY: send a filter's listener to the process that answers its notifications.

See config-linux.md, "The Container Process State". The child installs the filter and reports the
listener's descriptor number. The parent copies the descriptor out of the child and sends it, with
the container's state, over the unix socket of the profile: one message, one connection.
"""

import array
import errno
import os
import socket

from agent import loop
from agent.container.spec.seccomp import Listener
from agent.container.state import OCI_VERSION
from agent.errors import StepFailed
from agent.linux.process import pidfd_getfd

STEP = "send seccomp listener"
CONNECT_SECONDS = 10.0
RETRY_SECONDS = 0.01
FD_NAME = "seccompFd"


def process_state(listener: Listener, pid: int, state: dict[str, object]) -> bytes:
    """Return the document that is sent with the descriptor.

    `pid` is that of the process, `state` that of its container.
    """
    document: dict[str, object] = {"ociVersion": OCI_VERSION, "fds": [FD_NAME], "pid": pid, "state": state}
    if listener.metadata:
        document["metadata"] = listener.metadata
    import json  # only for listeners; costs PID 1 250 kB

    return json.dumps(document).encode()


async def send(listener: Listener, pidfd: int, number: int, document: bytes) -> None:
    """Copy descriptor `number` out of a process and send it. Raises StepFailed."""
    try:
        fd = pidfd_getfd(pidfd, number)
    except OSError as error:
        raise StepFailed(STEP, f"take it: {error.strerror}", error.errno or 0) from error
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, loop.timeout(CONNECT_SECONDS):
            connection.setblocking(False)
            await _connect(connection, listener.path)
            await _send(connection, document, fd)
    except TimeoutError:
        raise StepFailed(STEP, f"{listener.path}: nobody has taken it within {CONNECT_SECONDS} s") from None
    except OSError as error:
        raise StepFailed(STEP, f"{listener.path}: {error.strerror or error}", error.errno or 0) from error
    finally:
        os.close(fd)


async def _connect(connection: socket.socket, path: str) -> None:
    while True:
        try:
            connection.connect(path)
            return
        except BlockingIOError:
            # The listener's queue is full. unix(7) has no event for the moment when it has room
            # again.
            await loop.sleep(RETRY_SECONDS)


async def _send(connection: socket.socket, document: bytes, fd: int) -> None:
    """Send all of `document`. The descriptor goes with its first bytes."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    while document:
        try:
            document = document[connection.sendmsg([document], rights) :]
            rights = []
        except BlockingIOError:
            await loop.writable(connection.fileno())
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
