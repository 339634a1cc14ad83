"""The gateway alone, against an agent that answers what the test tells it."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from innkeeper.wire.connection import SERVER, Connection, RequestReceived
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.grpc import MAX_FRAME
from tests.paths import ROOT
from tests.root.grpc.grpc_helpers import PATIENCE

HANG_UP = Response()
"""An answer that is none: the agent closes the connection."""
Answering = Callable[[Request], "Response | None"]
"""None: no answer; the call then waits until its client is gone."""


class FakeAgent:
    """Serves ttRPC on a unix socket, one thread a connection. Keeps the requests, and how many clients have gone without an answer."""

    def __init__(self, path: Path, answering: Answering) -> None:
        self.answering = answering
        self.requests: list[Request] = []
        self.gone = threading.Semaphore(0)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # shut down
            threading.Thread(target=self._serve, args=(sock,)).start()

    def _serve(self, sock: socket.socket) -> None:
        connection = Connection(SERVER, MAX_FRAME)
        with sock:
            sock.settimeout(PATIENCE)
            while data := sock.recv(1 << 20):
                for event in connection.receive_data(data):
                    assert isinstance(event, RequestReceived)
                    self.requests.append(event.request)
                    response = self.answering(event.request)
                    if response is HANG_UP:
                        return
                    if response is None:
                        assert sock.recv(1) == b""
                        self.gone.release()
                        return
                    connection.send_response(event.stream, response)
                    sock.sendall(connection.data_to_send())

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@contextmanager
def gateway(folder: Path, answering: Answering) -> Iterator[tuple[FakeAgent, Path]]:
    """A gateway that has said that it listens, its agent, and the path of its own socket."""
    agent = FakeAgent(folder / "agent.sock", answering)
    ready, told = os.pipe()
    path = folder / "grpc.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.gateway", str(folder / "agent.sock"), str(path), str(told)],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        pass_fds=(told,),
    )
    os.close(told)
    try:
        assert os.read(ready, 2) == b"\n", "it has not said that it listens"
        assert os.read(ready, 1) == b"", "it keeps the descriptor"
        yield agent, path
        assert process.poll() is None
    finally:
        os.close(ready)
        process.kill()
        process.wait(PATIENCE)
        agent.close()
