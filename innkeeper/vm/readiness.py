"""Whether a guest is ready: it has called, and its agent answers Health.Check."""

import os
import select
import socket
import subprocess
import time
from collections.abc import Callable

from innkeeper.dial import dial
from innkeeper.vm import AGENT_PORT
from innkeeper.vm.vsock import Backend
from innkeeper.wire import status
from innkeeper.wire.connection import CLIENT, Connection, ResponseReceived
from innkeeper.wire.envelope import Request

REDIAL_SECONDS = 0.02
"""Seconds between two attempts to dial."""


class Readiness:
    """Waits for one guest. Deadlines are times of time.monotonic().

    `raise_if_ended` raises the error of a VM that has ended, which every wait raises too.
    """

    def __init__(self, backend: Backend, qemu: "subprocess.Popen[bytes]", raise_if_ended: Callable[[], None]) -> None:
        self._backend = backend
        self._qemu = qemu
        self._raise_if_ended = raise_if_ended
        self._called = False

    def wait_call(self, deadline: float) -> bool:
        """Wait for the guest's call that its agent listens. Return whether it has come.

        Dialling earlier would be unsafe: an unpatched vhost-device-vsock silently exits if the host
        connects before the guest's driver has set up its queues.
        """
        if self._called:
            return True
        listener = self._backend.listener.fileno()
        gone = os.pidfd_open(self._qemu.pid)
        try:
            while (left := deadline - time.monotonic()) > 0:
                readable, _, _ = select.select([listener, gone], [], [], min(left, 0.5))
                if gone in readable:
                    self._raise_if_ended()
                if listener in readable and self._backend.accept_ready():
                    self._called = True
                    self._backend.stop_listening()
                    return True
                self._raise_if_ended()
        finally:
            os.close(gone)
        return False

    def wait_answer(self, deadline: float) -> bool:
        """Dial the agent until it answers Health.Check, and return whether it did in time."""
        while True:
            self._raise_if_ended()
            try:
                with dial(self._backend.address(AGENT_PORT), max(0.05, deadline - time.monotonic())) as sock:
                    sock.settimeout(max(0.05, deadline - time.monotonic()))
                    check_health(sock)
                return True
            except OSError:
                self._raise_if_ended()
                if time.monotonic() >= deadline:
                    return False
                time.sleep(REDIAL_SECONDS)


def check_health(sock: socket.socket) -> None:
    """Call the agent's Health.Check on a connected socket, without message classes or threads.

    Raises OSError (TimeoutError, ConnectionError) unless the answer is OK.
    """
    connection = Connection(CLIENT)
    connection.send_request(Request("grpc.Health", "Check"))
    sock.sendall(connection.data_to_send())
    while data := sock.recv(4096):
        for event in connection.receive_data(data):
            if isinstance(event, ResponseReceived) and event.response.code != status.OK:
                raise ConnectionError(f"Health.Check answered {status.name(event.response.code)}: {event.response.message}")
            return
    raise ConnectionResetError("the connection ended")
