"""Opens the ports that the settings name.

A port that cannot be opened is logged, and the agent serves calls nevertheless.
"""

from typing import TYPE_CHECKING

from agent import log, loop
from agent.ports.address import open_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.sandbox import Sandbox


def open_ports(settings: "Config", sandbox: "Sandbox") -> None:
    """Open the log port, the debug console and the passthrough port, if they are set."""

    def try_to(name: str, action: "Callable[[], None]") -> None:
        try:
            action()
        except OSError as error:
            log.error(f"{name}: {error}", "ports")

    address = settings.server_addr
    if settings.log_vport:
        try_to("log port", lambda: _log(address, settings.log_vport))
    if settings.debug_console:
        try_to("debug console", lambda: _console(address, settings.debug_console_vport, sandbox))
    if settings.passfd_listener_port:
        try_to("passthrough port", lambda: _passthrough(address, settings.passfd_listener_port, sandbox))


def _log(address: str, port: int) -> None:
    from agent.ports.log_port import LogPort

    loop.spawn(LogPort(open_port(address, port)).serve(), name="log port")


def _console(address: str, port: int, sandbox: "Sandbox") -> None:
    from agent.ports.console import DebugConsole

    console = DebugConsole(sandbox)
    if port:
        loop.spawn(console.serve(open_port(address, port)), name="debug console")
    else:
        loop.spawn(console.on_machine(), name="debug console")


def _passthrough(address: str, port: int, sandbox: "Sandbox") -> None:
    from agent.pod.streams import Passthrough

    sandbox.streams = Passthrough()
    loop.spawn(sandbox.streams.serve(open_port(address, port)), name="passthrough")
