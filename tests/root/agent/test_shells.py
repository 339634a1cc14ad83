"""Processes of the guest itself, and ids that two calls give at once."""

from types import SimpleNamespace
from typing import Any

import pytest

from agent import loop
from agent.container.process import ContainerProcess
from agent.container.spec.document import parse_process
from agent.errors import AgentError, AlreadyExists, StepFailed
from agent.linux import procfs
from agent.linux.reaper import reaper
from agent.pod.shell import Shells
from agent.service.guest_service import start_shell
from innkeeper.wire.pb.guest_pb2 import StartShellRequest
from tests.descriptors import open_descriptors
from tests.needs import needs
from tests.root.container_helpers import PATH, Box

pytestmark = [pytest.mark.root, needs("busybox", "module:prctl")]


def _request(exec_id: str, *args: str) -> StartShellRequest:
    return StartShellRequest(exec_id=exec_id, args=args)


def test_two_shells_with_one_id_at_once() -> None:
    """The second is refused, as a second exec is; the first runs on and is closed."""

    async def main() -> None:
        sandbox: Any = SimpleNamespace(containers=SimpleNamespace(shells=Shells()))
        calls = [loop.spawn(start_shell(sandbox, _request("one", "/bin/cat")), name="start") for _ in range(2)]
        await calls[0].wait()
        with pytest.raises(AlreadyExists, match="'one' exists in the guest"):
            await calls[1].wait()
        shell: ContainerProcess = sandbox.containers.shells.processes.pop("one")
        await shell.stdio.write_stdin(b"echo")
        assert await shell.stdio.read_stdout(10) == b"echo"
        await shell.kill()
        shell.close()
        assert sandbox.containers.shells.processes == {}

    procfs.handle()  # kept by design
    before, children = open_descriptors(), len(reaper)
    loop.run(main())
    assert open_descriptors() == before
    assert len(reaper) == children


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_shell_that_does_not_start_leaves_its_id(cancelled: bool) -> None:
    async def main() -> None:
        sandbox: Any = SimpleNamespace(containers=SimpleNamespace(shells=Shells()))
        starting = loop.spawn(start_shell(sandbox, _request("one", "/no/such/program")), name="start")
        if cancelled:
            await loop.sleep(0)
            await starting.stop()
        with pytest.raises(loop.TaskCancelled if cancelled else StepFailed):
            await starting.wait()
        assert sandbox.containers.shells.processes == {}

    procfs.handle()  # kept by design
    before, children = open_descriptors(), len(reaper)
    loop.run(main())
    assert open_descriptors() == before
    assert len(reaper) == children


def test_an_exec_that_fails_while_somebody_waits_for_it(box: Box) -> None:
    """Whoever waits forgets it when it ends: its caller gets the failure all the same."""

    async def use(container: Any) -> None:
        process = parse_process({"args": ["/no/such/program"], "env": [PATH], "cwd": "/"})
        starting = loop.spawn(container.exec("e", process), name="exec")
        with loop.timeout(20):
            while "e" not in container.processes:
                await loop.sleep(0)
        container.processes.pop("e")  # as Sandbox.wait does
        with pytest.raises(AgentError, match="not found"):
            await starting.wait()

    box.during(box.document("sleep", "1000"), use)
