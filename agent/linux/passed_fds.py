"""Receive descriptors over a unix socket (SCM_RIGHTS, unix(7)).

`socket.recv_fds` of Python 3.11 ignores its flags: descriptors that it received were not
close-on-exec, and it blocked in spite of MSG_DONTWAIT.
"""

import array
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket


def receive_fds(source: "_socket.socket", size: int, count: int, flags: int = 0) -> tuple[bytes, list[int]]:
    """Return one message of up to `size` bytes and up to `count` descriptors.

    The descriptors are close-on-exec. Raises OSError.
    """
    fds = array.array("i")
    data, ancillary, _, _ = source.recvmsg(size, socket.CMSG_LEN(count * fds.itemsize), flags | socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)
