"""Sockets without the enumerations of the original.

Those make a class of each group of constants: a twentieth of what PID 1 loads. The constants are
plain integers here. What PID 1 and pyroute2's messages do not use (files on a socket, names of
hosts, servers) is absent.
"""

import _socket
import os
from _socket import *  # noqa: F403

has_ipv6 = True
AddressFamily = SocketKind = int


class socket(_socket.socket):
    """A socket that ends with a `with`, and whose connections are of this class."""

    __slots__ = ("__weakref__",)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def accept(self):
        fd, address = self._accept()
        return socket(self.family, self.type, self.proto, fileno=fd), address

    def dup(self):
        return socket(self.family, self.type, self.proto, fileno=_socket.dup(self.fileno()))

    def get_inheritable(self):
        return os.get_inheritable(self.fileno())

    def set_inheritable(self, inheritable):
        os.set_inheritable(self.fileno(), inheritable)


SocketType = socket


def fromfd(fd, family, type, proto=0):
    return socket(family, type, proto, fileno=_socket.dup(fd))


def socketpair(family=_socket.AF_UNIX, type=_socket.SOCK_STREAM, proto=0):
    first, second = _socket.socketpair(family, type, proto)
    return tuple(socket(family, type, proto, fileno=end.detach()) for end in (first, second))


def send_fds(sock, buffers, fds, flags=0, address=None):
    import array

    return sock.sendmsg(buffers, [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))])


def recv_fds(sock, size, most, flags=0):
    import array

    fds = array.array("i")
    data, rights, flags, address = sock.recvmsg(size, _socket.CMSG_LEN(most * fds.itemsize), flags)
    for level, type, content in rights:
        if level == _socket.SOL_SOCKET and type == _socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds), flags, address
