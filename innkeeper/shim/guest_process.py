"""A process in the guest: its streams are pumped, and its exit is awaited, in threads."""

import signal
import threading
from collections.abc import Callable

from innkeeper.client import Agent, RpcError
from innkeeper.engine import guest_agent
from innkeeper.engine.streams import Pump, StdinPump, output
from innkeeper.errors import InnkeeperError
from innkeeper.shim import log, streams
from innkeeper.shim.errors import unimplemented
from innkeeper.shim.process import LOST, Process, Stdio
from innkeeper.shim.streams import Input, Output
from innkeeper.wire.pb import oci_pb2


class GuestProcess(Process):
    """The process `exec_id` of the container `container_id` in the guest.

    Its first process has the container's id. It has ended once all its output is written.
    """

    def __init__(self, agent: Agent, container_id: str, exec_id: str, stdio: Stdio, on_exit: Callable[[Process], None]) -> None:
        super().__init__(stdio, on_exit)
        self._agent = agent
        self._container_id, self._exec_id = container_id, exec_id
        self._in_guest = guest_agent.Process(agent, container_id, exec_id)
        self._input: Input | None = None
        self._outputs: list[Output] = []

    def open_streams(self, *, hold_stdin: bool) -> None:
        """Open the streams.

        `close` must be called if this or what follows fails. Raises OSError and CallError.
        """
        stdio = self.stdio
        if stdio.stdin:
            self._input = Input(stdio.stdin, held=hold_stdin)
        self._outputs = streams.outputs(stdio)

    def attend(self) -> None:
        """Begin to copy the streams and to wait for the exit. The process exists in the guest."""
        threading.Thread(target=self._attend, name=f"process {self._exec_id}", daemon=True).start()

    def _attend(self) -> None:
        reads = (self._in_guest.read_stdout, self._in_guest.read_stderr)
        pumps = [output(read, end.write, f"output of {self._exec_id}") for read, end in zip(reads, self._outputs, strict=False)]
        stdin = self._begin_stdin()
        for pump in pumps:
            _finish(pump)
        # The agent forgets the process with this answer, and with it what was not read.
        status = self._wait()
        if stdin is not None:
            stdin.stop()
        self.close()
        self.ended(status)

    def _begin_stdin(self) -> StdinPump | None:
        if self._input is not None:
            return StdinPump(self._in_guest, self._input.descriptor)
        if not self.stdio.terminal:
            try:
                self._in_guest.close_stdin()
            except RpcError as error:
                log.error(f"standard input of {self._exec_id}: {error}")
        return None

    def _wait(self) -> int:
        try:
            return self._in_guest.wait()
        except RpcError as error:
            log.error(f"process {self._exec_id}: {error}")
            return LOST

    def kill(self, signum: int, everything: bool) -> None:
        """Send a signal to the process, or SIGKILL to all of its container.

        Raises CallError and RpcError.
        """
        self.check_alive()
        if everything and signum != signal.SIGKILL:
            raise unimplemented("only SIGKILL can be sent to all processes of a container")
        first = self._exec_id == self._container_id
        self._agent.signal_process(self._container_id, "" if everything or first else self._exec_id, signum)

    def resize(self, rows: int, columns: int) -> None:
        self._agent.tty_win_resize(self._container_id, self._exec_id, rows, columns)

    def close_stdin(self) -> None:
        if self._input is not None:
            self._input.end()

    def close(self) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None
        for end in self._outputs:
            end.close()


def _finish(pump: Pump) -> None:
    """Wait for the end of an output. Its failure shows up in the exit status too."""
    try:
        pump.finish()
    except (RpcError, InnkeeperError, OSError) as error:
        log.error(f"{pump.name}: {error}")


class InitProcess(GuestProcess):
    """The first process of a container, which the agent has created with it."""

    def start(self) -> None:
        """Let it execute its program. Raises CallError and RpcError."""
        self.check_created()
        self._agent.start_container(self._container_id)
        self.started = True


class ExecProcess(GuestProcess):
    """A process that is added to a running container when it starts."""

    def __init__(
        self, agent: Agent, container_id: str, exec_id: str, stdio: Stdio, on_exit: Callable[[Process], None], document: oci_pb2.Process
    ) -> None:
        super().__init__(agent, container_id, exec_id, stdio, on_exit)
        self._document = document
        self.hold_stdin = False

    def start(self) -> None:
        """Open its streams and add it to the container. Raises OSError, CallError and RpcError."""
        self.check_created()
        try:
            self.open_streams(hold_stdin=self.hold_stdin)
            self._agent.exec_process(self._container_id, self._exec_id, self._document)
        except BaseException:
            self.close()
            raise
        self.started = True
        self.attend()
