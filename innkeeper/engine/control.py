"""The socket by which other processes ask the owner of a container for something.

`control.sock` in the VM's folder takes one request a connection, a line of JSON, and answers with a
line. Requests are served one after the other. The owner's end closes the socket, and a request that
is being served then gets no answer.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innkeeper.dial import connect_unix, listen_unix, read_line
from innkeeper.errors import InnkeeperError

if TYPE_CHECKING:
    from innkeeper.engine.records import Container

SOCKET = "control.sock"
LINE_MAX = 64 << 10
"""Longest request or answer in bytes."""
REQUEST_SECONDS = 5.0
"""Seconds that a request may take to arrive."""
ANSWER_SECONDS = 900.0
"""Seconds that an answer may take: snapshots of large VMs on slow disks."""

Answer = dict[str, Any]


class Server:
    """Serves `handle` on the control socket in `folder`, in a thread. Owns the socket."""

    def __init__(self, folder: Path, handle: Callable[[dict[str, Any]], Answer]) -> None:
        self._handle = handle
        self._path = folder / SOCKET
        self._path.unlink(missing_ok=True)  # of a VM that was ended in this folder before
        self._listener = listen_unix(self._path)
        os.chmod(self._path, 0o600)
        self._busy = threading.Lock()
        self._closed = False
        self._current: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self, interrupt: Callable[[], object]) -> None:
        """Take no more requests.

        `interrupt` is called if one is being served, and must end that soon.
        """
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
        if (current := self._current) is not None:
            with suppress(OSError):  # it has ended
                current.shutdown(socket.SHUT_RD)  # wakes recv(2)
        if not self._busy.acquire(blocking=False):
            interrupt()
            self._busy.acquire()
        self._closed = True
        self._busy.release()
        self._thread.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return  # closed
            with sock:
                self._current = sock
                self._answer(sock)
                self._current = None

    def _answer(self, sock: socket.socket) -> None:
        sock.settimeout(REQUEST_SECONDS)
        try:
            request = _read_line(sock)
            with self._busy:
                if self._closed:
                    return
                answer = self._result(request)
            sock.sendall(json.dumps(answer).encode() + b"\n")
        except (OSError, ValueError):
            return  # the other process has left, or is none of ours

    def _result(self, request: dict[str, Any]) -> Answer:
        try:
            return {"answer": self._handle(request)}
        except InnkeeperError as error:
            return {"error": {"message": error.message, "hint": error.hint}}


@contextmanager
def serving(folder: Path, handle: Callable[[dict[str, Any]], Answer], interrupt: Callable[[], object]) -> Iterator[None]:
    """Context manager: serve requests.

    `interrupt` ends one that is being served at the end of the `with`.
    """
    server = Server(folder, handle)
    try:
        yield
    finally:
        server.close(interrupt)


def ask(folder: Path, command: str, **arguments: object) -> Answer:
    """Send a request to the owner of the VM in `folder`, and return its answer.

    Raises InnkeeperError.
    """
    try:
        with connect_unix(str(folder / SOCKET), REQUEST_SECONDS) as sock:
            sock.settimeout(ANSWER_SECONDS)
            sock.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            answer = _read_line(sock)
    except (OSError, ValueError) as error:
        raise InnkeeperError(f"the process that owns the container does not answer: {error}") from error
    if "error" in answer:
        raise InnkeeperError(**answer["error"])
    return dict(answer["answer"])


def ask_owner(container: "Container", command: str, **arguments: object) -> Answer:
    """Send a request to the owner of a running container.

    Raises InnkeeperError, also if it does not run.
    """
    _ = container.address  # its error says what the container is
    return ask(container.folder, command, **arguments)


def _read_line(sock: socket.socket) -> dict[str, Any]:
    """Return one line of JSON, an object. Raises OSError and ValueError."""
    line = read_line(sock, LINE_MAX)
    if len(line) > LINE_MAX:
        raise ValueError("a line that is too long")
    if not line.endswith(b"\n"):
        raise ConnectionResetError("it has ended")
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
