"""What handlers check themselves, and what they hand on: with a sandbox that only notes what it is asked."""

from typing import Any, cast

import pytest

from agent.errors import AgentError, NotFound, Refused
from agent.loop import Queue, run, sleep, spawn
from agent.sandbox import Sandbox as RealSandbox
from agent.service import containers, guest, sandboxes, streams
from innkeeper.wire.pb import agent_pb2, oci_pb2


class Process:
    """A process that notes its calls; reading gives as many bytes as asked for, up to `output`."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.output = b""
        self.stdio = self

    async def write_stdin(self, data: bytes) -> int:
        self.calls.append(("write", data))
        return len(data)

    def close_stdin(self) -> None:
        self.calls.append(("close",))

    async def read_stdout(self, size: int) -> bytes:
        self.calls.append(("stdout", size))
        return self.output[:size]

    async def read_stderr(self, size: int) -> bytes:
        self.calls.append(("stderr", size))
        return self.output[:size]

    def resize(self, rows: int, columns: int) -> None:
        self.calls.append(("resize", rows, columns))


class Containers:
    """Knows the process p of container c."""

    def __init__(self) -> None:
        self.the_process = Process()

    def process(self, container_id: str, exec_id: str) -> Process:
        if (container_id, exec_id) != ("c", "p"):
            raise NotFound(f"Process not found: {exec_id!r}")
        return self.the_process

    async def exec(self, container_id: str, exec_id: str, document: object) -> None:
        raise AssertionError("a refused request went on")

    async def create(self, request: object, document: object) -> None:
        raise AssertionError("a refused request went on")


class Sandbox:
    def __init__(self) -> None:
        self.containers = Containers()
        self.oom_events: Queue[str] = Queue()
        self._passthrough = None

    claim_streams = RealSandbox.claim_streams


@pytest.fixture
def sandbox() -> Any:
    return Sandbox()


def call(handler: Any, sandbox: Any, request: Any) -> Any:
    async def main() -> Any:
        return await handler(sandbox, request)

    return run(main())


def test_writing_and_the_end_of_input(sandbox: Any) -> None:
    request = agent_pb2.WriteStreamRequest(container_id="c", exec_id="p", data=b"hello")
    assert call(streams.write_stdin, sandbox, request).len == 5
    request.data = b""
    assert call(streams.write_stdin, sandbox, request).len == 0
    call(streams.close_stdin, sandbox, agent_pb2.CloseStdinRequest(container_id="c", exec_id="p"))
    assert sandbox.containers.the_process.calls == [("write", b"hello"), ("close",), ("close",)]


@pytest.mark.parametrize(("handler", "name"), [(streams.read_stdout, "stdout"), (streams.read_stderr, "stderr")])
def test_reading_is_bounded(sandbox: Any, handler: Any, name: str) -> None:
    sandbox.containers.the_process.output = b"x" * 10
    request = agent_pb2.ReadStreamRequest(container_id="c", exec_id="p", len=4)
    assert call(handler, sandbox, request).data == b"xxxx"
    request.len = 0xFFFFFFFF
    assert call(handler, sandbox, request).data == b"x" * 10
    assert sandbox.containers.the_process.calls == [(name, 4), (name, 1 << 20)]
    request.len = 0
    with pytest.raises(Refused, match="len: "):
        call(handler, sandbox, request)


@pytest.mark.parametrize(
    ("rows", "columns", "fits"), [(24, 80, True), (0, 0, True), (65535, 65535, True), (65536, 80, False), (24, 0xFFFFFFFF, False)]
)
def test_sizes_of_a_terminal(sandbox: Any, rows: int, columns: int, fits: bool) -> None:
    request = agent_pb2.TtyWinResizeRequest(container_id="c", exec_id="p", row=rows, column=columns)
    if fits:
        call(streams.tty_win_resize, sandbox, request)
        assert sandbox.containers.the_process.calls == [("resize", rows, columns)]
    else:
        with pytest.raises(Refused, match="row, column"):
            call(streams.tty_win_resize, sandbox, request)
        assert sandbox.containers.the_process.calls == []


@pytest.mark.parametrize(
    "handler", [streams.write_stdin, streams.read_stdout, streams.read_stderr, streams.close_stdin, streams.tty_win_resize]
)
def test_a_process_that_is_not_there(sandbox: Any, handler: Any) -> None:
    kinds = {
        streams.write_stdin: agent_pb2.WriteStreamRequest(data=b"x"),
        streams.close_stdin: agent_pb2.CloseStdinRequest(),
        streams.tty_win_resize: agent_pb2.TtyWinResizeRequest(),
    }
    request = cast("Any", kinds.get(handler, agent_pb2.ReadStreamRequest(len=1)))
    with pytest.raises(NotFound):
        call(handler, sandbox, request)


@pytest.mark.parametrize("field", ["stdin_port", "stdout_port", "stderr_port"])
def test_ports_for_streams_are_refused_by_name_where_none_is_open(sandbox: Any, field: str) -> None:
    create = agent_pb2.CreateContainerRequest(container_id="c", OCI=oci_pb2.Spec(Linux=oci_pb2.Linux()))
    more = agent_pb2.ExecProcessRequest(container_id="c", exec_id="e")
    for handler, request in ((containers.create_container, create), (containers.exec_process, more)):
        setattr(request, field, 7)
        with pytest.raises(Refused, match=field):
            call(handler, sandbox, request)


@pytest.mark.parametrize(
    ("seconds", "microseconds", "field"), [(-1, 0, "Sec"), (1 << 62, 0, "Sec"), (1, -1, "Usec"), (1, 1_000_000, "Usec")]
)
def test_times_that_are_none_are_refused(sandbox: Any, seconds: int, microseconds: int, field: str) -> None:
    request = agent_pb2.SetGuestDateTimeRequest(Sec=seconds, Usec=microseconds)
    with pytest.raises(Refused, match=field):
        call(guest.set_guest_date_time, sandbox, request)


def test_the_next_kill_for_lack_of_memory_is_waited_for(sandbox: Any) -> None:
    async def main() -> list[str]:
        waiting = [spawn(sandboxes.get_oom_event(sandbox, agent_pb2.GetOOMEventRequest()), name="oom") for _ in range(3)]
        await sleep(0)
        sandbox.oom_events.put_nowait("c1")
        first = await waiting[0].wait()
        sandbox.oom_events.put_nowait("c2")
        second = await waiting[1].wait()
        assert not waiting[2].done
        sandbox.oom_events.close()
        with pytest.raises(AgentError, match=r"^$"):
            await waiting[2].wait()
        return [first.container_id, second.container_id]

    assert run(main()) == ["c1", "c2"]
