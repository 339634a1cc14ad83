"""The command `proxy`: a local socket for a port of the guest around a container."""

from pathlib import Path

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError
from innkeeper.wire.grpc import PORT


def proxy(name: str, port: int = PORT, socket: Path | None = None) -> None:
    """Serve a port of the guest around CONTAINER, by default that of gRPC, as a unix socket.

    The socket's path on this host is printed. Runs until it is interrupted or the guest has ended,
    and removes the socket then.
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


COMMAND = flags.Command(
    name="proxy",
    run=proxy,
    arguments=(flags.container(),),
    flags=(
        flags.single(
            "port", "-p", "--port", kind=int, minimum=1, maximum=(1 << 32) - 2, default=PORT, help="Port of the guest; 1024 is ttRPC."
        ),
        flags.single("socket", "-s", "--socket", kind=flags.PATH, help="Where to listen; by default in the folder of the VM."),
    ),
    examples=("proxy web", "proxy web --socket /tmp/web.sock", "grpcurl -unix -plaintext /tmp/web.sock list"),
)
