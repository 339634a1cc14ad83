"""Where a port is: on vsock in a guest, beside the agent's own socket outside of one."""

from agent.loop import Socket
from agent.loop.sockets import listen


def open_port(server_addr: str, port: int) -> Socket:
    """Return a listening socket for `port`: of vsock, or where the agent listens on unix://PATH, unix://PATH-PORT. Raises OSError."""
    scheme, _, _ = server_addr.partition("://")
    return listen(f"{server_addr}-{port}" if scheme == "unix" else f"vsock://-1:{port}")
