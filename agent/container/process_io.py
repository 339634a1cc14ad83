"""What a process of a container inherits from its creator."""

from dataclasses import dataclass

from agent.container.stdio import Stdio


@dataclass(frozen=True, slots=True)
class ProcessIO:
    """Streams in place of new pipes, descriptors that stay open, and a listening socket.

    On that the process awaits its start, if another process than the creator starts it.
    """

    stdio: Stdio | None = None
    preserved: tuple[int, ...] = ()
    start_socket: int = -1
    detached: bool = False
    """Detached: it will be reparented when this process exits, so it is not reaped here."""


DEFAULT_IO = ProcessIO()
