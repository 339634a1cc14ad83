"""Where a port is: on vsock in a guest, beside the agent's own socket outside of one."""

import socket

from agent.service.server import listen


def open_port(server_addr: str, port: int) -> socket.socket:
    """A listening socket for `port`: of vsock, or where the agent itself listens on unix://PATH, unix://PATH-PORT. Raises OSError."""
    scheme, _, _ = server_addr.partition("://")
    listener = listen(f"{server_addr}-{port}" if scheme == "unix" else f"vsock://-1:{port}")
    return socket.socket(fileno=listener.detach())
