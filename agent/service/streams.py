"""Handlers of the calls about the standard streams and the terminal of a process."""

from typing import TYPE_CHECKING

from agent.errors import Refused
from innkeeper.wire.pb.agent_pb2 import ReadStreamResponse, WriteStreamResponse
from innkeeper.wire.pb.empty_pb2 import Empty

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2

MAX_READ = 1 << 20
"""Most bytes of one answer."""


async def write_stdin(sandbox: "Sandbox", request: "agent_pb2.WriteStreamRequest") -> WriteStreamResponse:
    """Write to the standard input of a process and return the number of bytes.

    Empty data closes the input.
    """
    process = sandbox.containers.process(request.container_id, request.exec_id)
    if not request.data:
        process.stdio.close_stdin()
        return WriteStreamResponse()
    return WriteStreamResponse(len=await process.stdio.write_stdin(request.data))


async def read_stdout(sandbox: "Sandbox", request: "agent_pb2.ReadStreamRequest") -> ReadStreamResponse:
    """Wait for output of a process, or of its terminal, and return it. No data means the end."""
    process = sandbox.containers.process(request.container_id, request.exec_id)
    return ReadStreamResponse(data=await process.stdio.read_stdout(_size(request.len)))


async def read_stderr(sandbox: "Sandbox", request: "agent_pb2.ReadStreamRequest") -> ReadStreamResponse:
    """Wait for the error output of a process and return it. No data means the end.

    Raises WrongState if the process has a terminal.
    """
    process = sandbox.containers.process(request.container_id, request.exec_id)
    return ReadStreamResponse(data=await process.stdio.read_stderr(_size(request.len)))


def _size(wanted: int) -> int:
    """Return the number of bytes to read. Raises Refused for 0."""
    if not wanted:
        raise Refused("len", "must be above 0: an empty answer means the end")
    return min(wanted, MAX_READ)


async def close_stdin(sandbox: "Sandbox", request: "agent_pb2.CloseStdinRequest") -> Empty:
    """Close the standard input of a process. A terminal stays open."""
    sandbox.containers.process(request.container_id, request.exec_id).stdio.close_stdin()
    return Empty()


async def tty_win_resize(sandbox: "Sandbox", request: "agent_pb2.TtyWinResizeRequest") -> Empty:
    """Set the size of a terminal. Raises Refused or WrongState."""
    if request.row > 65535 or request.column > 65535:
        raise Refused("row, column", "above 65535")
    sandbox.containers.process(request.container_id, request.exec_id).stdio.resize(request.row, request.column)
    return Empty()


METHODS: "Handlers" = {
    "WriteStdin": write_stdin,
    "ReadStdout": read_stdout,
    "ReadStderr": read_stderr,
    "CloseStdin": close_stdin,
    "TtyWinResize": tty_win_resize,
}
