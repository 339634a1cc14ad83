"""The command `proxy`: a local socket for a port of the guest around a container."""

from pathlib import Path
from typing import Annotated

import typer

from innkeeper.errors import InnkeeperError
from innkeeper.wire.grpc import PORT

EXAMPLES = "Examples:  proxy web;  proxy web --socket /tmp/web.sock;  grpcurl -unix -plaintext /tmp/web.sock list"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("proxy", epilog=EXAMPLES)(proxy)


def proxy(
    name: Annotated[str, typer.Argument(metavar="CONTAINER")],
    port: Annotated[int, typer.Option("--port", "-p", help="Port of the guest's vsock; 1024 is ttRPC.", min=1, max=(1 << 32) - 2)] = PORT,
    socket: Annotated[Path | None, typer.Option("--socket", "-s", help="Where to listen; by default in the machine's folder.")] = None,
) -> None:
    """Give a port of the guest around CONTAINER, by default that of gRPC, a unix socket on this host; its path is printed.

    Runs until it is interrupted or the guest has ended, and removes the socket then.
    """
    from innkeeper.engine import records
    from innkeeper.vm import proxy as proxying

    container = records.lookup(name)
    if container.facts.status != records.RUNNING:
        raise InnkeeperError(f"container {container.name} is not running: it is {container.facts.status}")
    path = (socket or container.folder / f"port-{port}.sock").absolute()
    with proxying.listening(path) as listener:
        print(path, flush=True)
        proxying.serve(listener, container.vm.address(port), container.still_alive)
