"""A process of a container as its parent sees it: records over the control socket, exit status, errors, without root.

Nothing is contained: the child is a plain fork of the test, which holds the other end of the control socket.
"""

import os
import socket
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent import loop
from agent.container import exec_
from agent.container import process as process_module
from agent.container.control_socket import ControlSocket
from agent.container.init import child_error
from agent.container.process import UNKNOWN_STATUS, ContainerProcess
from agent.container.process_io import ProcessIO
from agent.errors import Refused, StepFailed, WrongState
from agent.linux import procfs
from agent.linux.reaper import reaper

LIMIT = 20


def with_process(body: Callable[[ContainerProcess, socket.socket], Awaitable[None]]) -> None:
    """Run `body` with a process that has not been forked, and the child's end of its socket."""

    async def main() -> None:
        process = ContainerProcess("e", terminal=False)
        with socket.socket(fileno=process.control_pair()) as child, loop.timeout(LIMIT):
            await body(process, child)
        process.close()
        process.close()

    procfs.handle()  # opened once for all
    before = os.listdir("/proc/self/fd")
    loop.run(main())
    assert os.listdir("/proc/self/fd") == before


def adopt(process: ContainerProcess, *argv: str) -> "subprocess.Popen[bytes]":
    child = subprocess.Popen(argv)
    process.pid = child.pid
    process._adopt(os.pidfd_open(child.pid))
    child.returncode = 0  # the reaper of the agent takes the status
    return child


def test_a_start_by_records() -> None:
    """The child asks, reports that it is contained, runs hooks, and its end of the socket is closed by exec."""

    async def body(process: ContainerProcess, child: socket.socket) -> None:
        async def mounted(record: bytes) -> bytes:
            return b"answer to " + record

        process.request_handlers[b"mounted"] = mounted
        child.send(b"mounted 1")
        child.send(b"created")
        await process.wait_created()
        assert child.recv(100) == b"answer to mounted 1"
        child.send(b"hooked")
        starting = loop.spawn(process.start(hooks=True, hooks_timeout=None), name="start")
        await loop.sleep(0)
        assert (child.recv(100), process.started) == (b"start", False)
        child.close()
        await starting.wait()
        assert process.started

    with_process(body)


def test_a_step_that_fails_is_raised_with_its_name() -> None:
    async def body(process: ContainerProcess, child: socket.socket) -> None:
        child.send(child_error.encode("mount /proc", PermissionError(1, "Operation not permitted", "/proc")))
        with pytest.raises(StepFailed, match=r"mount /proc: .*Operation not permitted") as caught:
            await process.wait_created()
        assert caught.value.errno == 1

    with_process(body)


@pytest.mark.parametrize(("hooks", "step"), [(False, "contain"), (True, "startContainer hooks")])
def test_a_child_that_dies_is_reported_with_its_status(hooks: bool, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(process: ContainerProcess, child: socket.socket) -> None:
        adopt(process, "sh", "-c", "exit 7")
        child.close()
        with pytest.raises(StepFailed, match=rf"{step}.*status 7"):
            await (process.start(hooks=True) if hooks else process.wait_created())

    with_process(body)


def test_a_receiver_whose_socket_is_closed_gets_the_end_of_file() -> None:
    """Whether it waits then or asks later: the process was removed meanwhile."""

    async def main() -> None:
        control, other = ControlSocket.pair()
        try:
            waiting = loop.spawn(control.receive(10), name="receive")
            await loop.sleep(0)
            control.close()
            assert await waiting.wait() == (b"", [])
            assert await control.receive(10) == (b"", [])
        finally:
            os.close(other)

    loop.run(main())


def test_a_child_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "SETUP_SECONDS", 0.01)

    async def body(process: ContainerProcess, child: socket.socket) -> None:
        with pytest.raises(StepFailed, match=r"not done within 0\.01 s"):
            await process.wait_created()

    with_process(body)


def test_a_terminal_arrives_as_a_descriptor() -> None:
    async def main() -> None:
        process = ContainerProcess("e", terminal=True)
        master, slave = os.openpty()
        with socket.socket(fileno=process.control_pair()) as child, loop.timeout(LIMIT):
            socket.send_fds(child, [b"terminal"], [master])
            child.send(b"created")
            await process.wait_created()
            os.write(slave, b"text")
            assert await process.stdio.read_stdout(100) == b"text"
        os.close(master)
        os.close(slave)
        process.close()

    loop.run(main())


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -TERM $$", 143)])
def test_the_exit_status_is_the_shells(script: str, status: int) -> None:
    async def body(process: ContainerProcess, child: socket.socket) -> None:
        adopt(process, "sh", "-c", script)
        assert (await process.wait(), process.exit_status) == (status, status)
        with pytest.raises(WrongState, match="has ended"):
            process.signal(15)
        await process.kill()

    with_process(body)
    assert len(reaper) == 0


def test_kill_ends_a_process() -> None:
    async def body(process: ContainerProcess, child: socket.socket) -> None:
        adopt(process, "sleep", "1000")
        process.signal(0)
        await process.kill()
        assert process.exit_status == 137
        process.send(b"start")
        child.close()
        process.send(b"start")  # to a child that has ended: its last record is read elsewhere

    with_process(body)


def test_a_process_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "KILL_SECONDS", 0.01)
    monkeypatch.setattr("agent.linux.process.kill", lambda pidfd: None)

    async def body(process: ContainerProcess, child: socket.socket) -> None:
        running = adopt(process, "sleep", "1000")
        with pytest.raises(StepFailed, match="has not ended"):
            await process.kill()
        os.kill(running.pid, 9)
        await process.wait()

    with_process(body)


def test_a_process_of_another_parent_has_no_known_status() -> None:
    async def main() -> None:
        child = subprocess.Popen(["sh", "-c", "exit 5"])
        process = ContainerProcess.attach("e", child.pid, os.pidfd_open(child.pid), started=True)
        with loop.timeout(LIMIT):
            assert await process.wait() == UNKNOWN_STATUS
        process.close()
        assert child.wait() == 5
        ended = ContainerProcess.attach("e", 1, -1, started=True)
        assert (await ended.wait(), ended.pidfd) == (UNKNOWN_STATUS, -1)
        ended.close()

    loop.run(main())


def test_the_child_keeps_what_its_plan_uses() -> None:
    async def body(process: ContainerProcess, child: socket.socket) -> None:
        plan: Any = type("Plan", (), {"control": 100, "stdio": (), "preserved": (), "start_socket": 0, "keep": []})()
        process._io = ProcessIO(preserved=(101,), start_socket=-1)
        process._prepare(plan, [102])
        assert {100, 101, 102, *process.stdio.child_fds} <= set(plan.keep)
        assert (-1 in plan.keep, plan.preserved, plan.stdio) == (False, (101,), process.stdio.child_fds)
        process.chown_stdio(0)

    with_process(body)


def test_processors_that_are_not_here_are_refused() -> None:
    own = os.sched_getaffinity(0)
    with pytest.raises(Refused, match="none of these processors is here"), exec_._Affinity((1023,)):
        pass
    assert os.sched_getaffinity(0) == own
    one = min(own)
    with exec_._Affinity((one,)):
        assert os.sched_getaffinity(0) == {one}
    assert os.sched_getaffinity(0) == own


def test_a_process_that_never_began_keeps_nobody_waiting() -> None:
    """An exec that fails before its fork has been in the table of processes, where a client may have found it."""

    async def main() -> int:
        process = ContainerProcess("e", terminal=False)
        waiting = loop.spawn(process.wait(), name="waiter")
        await loop.sleep(0)
        await process.kill()
        with loop.timeout(10):
            return await waiting.wait()

    assert loop.run(main()) == UNKNOWN_STATUS
