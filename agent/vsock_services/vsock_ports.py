"""Opens the services on extra vsock ports: log, console, streams, forwarded connections.

A port that cannot be opened is logged, and the agent serves calls nevertheless.
"""

from typing import TYPE_CHECKING

from agent import log, loop
from agent.loop.sockets import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from agent.config import Config
    from agent.loop import Socket
    from agent.sandbox import Sandbox


def open_ports(settings: "Config", sandbox: "Sandbox") -> None:
    """Open the ports that are set: log, debug console, passthrough, forwarded connections."""

    def serve(name: str, service: "Callable[[], Coroutine[Any, Any, None]]") -> None:
        try:
            loop.spawn(service(), name=name)
        except OSError as error:
            log.error(f"{name}: {error}", "ports")

    def port(number: int) -> "Socket":
        return _listen(settings.server_addr, number)

    if settings.log_vport:
        from agent.vsock_services.log_port import LogPort

        serve("log port", lambda: LogPort(port(settings.log_vport)).serve())
    if settings.debug_console:
        from agent.vsock_services.console import DebugConsole

        console, number = DebugConsole(sandbox.containers.shells), settings.debug_console_vport
        serve("debug console", lambda: console.serve(port(number)) if number else console.on_vm_console())
    if settings.passfd_listener_port:
        serve("passthrough port", lambda: sandbox.pass_streams().serve(port(settings.passfd_listener_port)))
    if settings.port_forward_vport:
        from agent.vsock_services.port_forward import PortForward

        serve("port forward", lambda: PortForward().serve(port(settings.port_forward_vport)))


def _listen(server_addr: str, port: int) -> "Socket":
    """Return a listening socket for `port`.

    It is a vsock port, unless the agent listens on unix://PATH. Then it is unix://PATH-PORT.
    Raises OSError.
    """
    return listen(f"{server_addr}-{port}" if server_addr.startswith("unix://") else f"vsock://-1:{port}")
