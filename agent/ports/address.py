"""Addresses of the ports: vsock in a guest, unix sockets outside of one."""

from agent.loop import Socket
from agent.loop.sockets import listen


def open_port(server_addr: str, port: int) -> Socket:
    """Return a listening socket for `port`.

    It is a vsock port, unless the agent listens on unix://PATH. Then it is unix://PATH-PORT.
    Raises OSError.
    """
    scheme, _, _ = server_addr.partition("://")
    return listen(f"{server_addr}-{port}" if scheme == "unix" else f"vsock://-1:{port}")
