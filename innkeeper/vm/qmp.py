"""QEMU's control connection: the QEMU Machine Protocol, JSON by lines on a socket.

Reference: docs/interop/qmp-spec of QEMU. Both ends belong to this process until QEMU inherits its
own: what is sent before QEMU starts waits in the socket, which saves round trips.
"""

import json
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

from innkeeper.errors import InnkeeperError

READ_SIZE = 64 << 10
LINE_MAX = 1 << 20
"""Longest line in bytes that is taken from QEMU."""
SECONDS = 10.0
"""Seconds that an answer may take."""


class QmpError(InnkeeperError):
    """QEMU refused a command, or does not answer."""


class Qmp:
    """A connection of one client, which QEMU accepts commands on from its start.

    Owns both ends of a pair until `close_far_end`.
    """

    def __init__(self) -> None:
        self._sock, self._far = socket.socketpair()
        self._received = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self.send("qmp_capabilities")

    @property
    def fd(self) -> int:
        """The descriptor that QEMU inherits."""
        return self._far.fileno()

    def close_far_end(self) -> None:
        """Close our copy of QEMU's end, so that the end of QEMU is noticed."""
        self._far.close()

    def close(self) -> None:
        self._far.close()
        self._sock.close()

    def send(self, command: str, arguments: Mapping[str, object] | None = None, *, fd: int | None = None) -> int:
        """Send a command and return its number, for `answer`. Raises QmpError.

        `fd` is a descriptor that goes with it, for `getfd`.
        """
        self._number += 1
        request: dict[str, object] = {"execute": command, "id": self._number}
        if arguments:
            request["arguments"] = arguments
        line = json.dumps(request).encode() + b"\n"
        try:
            if fd is None:
                self._sock.sendall(line)
            else:
                socket.send_fds(self._sock, [line], [fd])
        except OSError as error:
            raise QmpError(f"QEMU took no command: {error}") from error
        return self._number

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, seconds: float = SECONDS) -> Any:
        """Send a command, wait for its answer and return its value. Raises QmpError."""
        return self.answer(self.send(command, arguments), command, seconds=seconds)

    def answer(self, number: int, command: str, *, seconds: float = SECONDS) -> Any:
        """Wait for the answer to a command that was sent. Return its value. Raises QmpError."""
        deadline = time.monotonic() + seconds
        while number not in self._answers:
            self._receive(deadline, command)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise QmpError(f"QEMU refused {command}: {answer['error'].get('desc', answer['error'])}")
        return answer.get("return")

    def event(self, *names: str, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait for the next event with one of these names, and return it. Raises QmpError.

        Events before it are dropped.
        """
        deadline = time.monotonic() + seconds
        while True:
            while self._events:
                event = self._events.pop(0)
                if event["event"] in names:
                    return event
            self._receive(deadline, " or ".join(names))

    def _receive(self, deadline: float, what: str) -> None:
        """Wait for data and sort its lines into answers and events."""
        readable, _, _ = select.select([self._sock], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise QmpError(f"QEMU did not answer in time: {what}")
        try:
            data = self._sock.recv(READ_SIZE)
        except OSError as error:
            raise QmpError(f"QEMU's control connection failed: {error}") from error
        if not data:
            raise QmpError(f"QEMU ended before its answer: {what}")
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > LINE_MAX:
            raise QmpError("QEMU sent a line that is too long")
        for line in lines:
            self._sort(line)

    def _sort(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError as error:
            raise QmpError(f"QEMU sent something that is not JSON: {error}") from error
        if "event" in message:
            self._events.append(message)
        elif isinstance(number := message.get("id"), int):
            self._answers[number] = message
        elif "error" in message:
            raise QmpError(f"QEMU: {message['error'].get('desc', message['error'])}")
