"""Operations that change the kernel's state and our record of it, given up at each of their awaits: both sides agree afterwards.

A client's deadline is such a cancellation. What was given up has not happened, or goes on to its end; and it can be asked for again.
"""

import os
import select
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container import container as container_module
from agent.container import hooks
from agent.container.cgroup import files
from agent.container.cgroup.manager import Cgroup
from agent.container.container import Container
from agent.container.lifecycle import Status
from agent.container.spec.document import parse_process, parse_resources
from agent.container.spec.resources import Resources
from agent.errors import AgentError, StepFailed
from agent.linux.reaper import reaper
from tests.cancellation import at_each_await, cancelled_at
from tests.needs import needs
from tests.root.conftest import _children, _descriptors
from tests.root.container.kinds import HOOKS, JOINED, KINDS, beside, document
from tests.root.container_helpers import PATH, Box, Document, execute, failing_at

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]

SLEEP = ("sleep", "1000")


def is_frozen(container: Container) -> bool:
    assert container.cgroup is not None
    return container.cgroup.frozen()


def depth(value: str) -> Resources:
    """A limit of a file that every group of every machine has. No request can name it."""
    return replace(parse_resources({}), unified={"cgroup.max.depth": value})


@pytest.fixture
def kind_box(request: pytest.FixtureRequest, box: Box, kind: str) -> Box:
    """The place for a container of `kind`, with a root that belongs to its users."""
    mapped: Box = request.getfixturevalue("mapped") if kind == "users" or kind in JOINED else box
    return mapped


def leaving_children(*names: str) -> Document:
    """Hooks, each of which leaves a process behind that holds its output for a while."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 0.3 & echo done"], "env": [PATH], "timeout": 60}
    return {name: [hook] for name in names}


def owned() -> tuple[int, list[str], set[str]]:
    """What this process has to get rid of: children that it knows, all children, descriptors."""
    return len(reaper), _children(), _descriptors()


async def settled(container: Container) -> None:
    """What goes on by itself has come to its end."""
    async with container._lock:
        pass


def test_pause_and_resume(box: Box) -> None:
    async def use(container: Container) -> None:
        async def pause(number: int) -> bool:
            cut = await cancelled_at(number, container.pause())
            assert (container.status is Status.PAUSED) == is_frozen(container) == (not cut)
            if not cut:
                await container.resume()
            assert (await execute(container, "echo", "runs")).stdout == "runs\n"
            container.processes.pop("e1").close()
            return cut

        async def resume(number: int) -> bool:
            await container.pause()
            cut = await cancelled_at(number, container.resume())
            assert container.status is Status.RUNNING
            assert not is_frozen(container)
            return cut

        await at_each_await(pause)
        await at_each_await(resume)

    box.during(box.document(*SLEEP), use)


def test_a_pause_that_takes_too_long_for_the_client(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel cannot freeze it, and the deadline passes: it is thawed, and its state is the truth."""
    read = Cgroup.read

    def never_frozen(self: Cgroup, name: str) -> str:
        return read(self, name).replace("frozen 1", "frozen 0")

    async def use(container: Container) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Cgroup, "read", never_frozen)
            with pytest.raises(TimeoutError), loop.timeout(0.05):
                await container.pause()
        assert container.status is Status.RUNNING
        assert not is_frozen(container)
        await container.pause()
        assert (container.status, is_frozen(container)) == (Status.PAUSED, True)
        await container.resume()
        assert (container.status, is_frozen(container)) == (Status.RUNNING, False)

    box.during(box.document(*SLEEP), use)


def test_update(box: Box) -> None:
    """Once begun it goes on."""

    async def use(container: Container) -> None:
        async def update(number: int) -> bool:
            value = str(100 + number)
            cut = await cancelled_at(number, container.update(depth(value)))
            with loop.timeout(20):
                while container.cgroup is not None and container.cgroup.read("cgroup.max.depth").strip() != value:
                    await loop.sleep(0.01)
            await settled(container)
            return cut

        await at_each_await(update)

    box.during(box.document(*SLEEP), use)


@pytest.mark.parametrize("kind", (*KINDS, *JOINED))
def test_exec(kind_box: Box, tmp_path: Path, kind: str) -> None:
    """What was given up is gone, and its id is free."""
    box = kind_box

    async def use(doc: Document) -> None:
        container = await box.create(doc)
        await container.start()

        async def exec_(number: int) -> bool:
            before = owned()
            process = parse_process({"args": list(SLEEP), "env": [PATH], "cwd": "/", "terminal": kind == "terminal"})
            cut = await cancelled_at(number, container.exec("e1", process))
            assert ("e1" in container.processes) == (not cut)
            if not cut:
                await container.process("e1").kill()
                container.processes.pop("e1").close()
            assert container.pids() == [container.init.pid]
            assert owned() == before, f"await {number}"
            return cut

        await at_each_await(exec_)
        await container.remove()

    doc = document(box, tmp_path, kind)
    doc["process"]["args"] = list(SLEEP)
    loop.run(beside(box, doc, kind, use))


@pytest.mark.parametrize("kind", (*KINDS, *JOINED))
def test_create(kind_box: Box, tmp_path: Path, kind: str) -> None:
    """Nothing is left of it, wherever that is looked for."""
    box = kind_box

    async def use(doc: Document) -> None:
        async def create(number: int) -> bool:
            made: list[Container] = []

            async def work() -> None:
                made.append(await box.create(doc))

            before = owned()
            cut = await cancelled_at(number, work())
            for container in made:
                await container.remove()
            assert owned() == before, f"await {number}"
            return cut

        await at_each_await(create)

    doc = document(box, tmp_path, kind)
    if kind == "hooks":
        doc["hooks"] = leaving_children(*HOOKS)
    loop.run(beside(box, doc, kind, use))


@pytest.mark.parametrize("step", ["complete plan", "map ids", "find program"])
def test_a_creation_that_has_failed(box: Box, step: str) -> None:
    """The client's time is over while it is undone: it is undone nevertheless."""

    async def main() -> None:
        async def create(number: int) -> bool:
            before = owned()
            try:
                with failing_at(step):
                    cut = await cancelled_at(number, box.create(box.document(*SLEEP)))
            except StepFailed:
                cut = False
            assert owned() == before, f"await {number}"
            assert [path for path in box.host.cgroup_root.iterdir() if path.is_dir()] == [], f"await {number}"
            return cut

        await at_each_await(create)

    loop.run(main())


def test_a_hook_cannot_hold_a_creation_that_has_failed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could remove the container, and with it end a poststop hook without a timeout."""
    monkeypatch.setattr(container_module, "FAILED_HOOKS_SECONDS", 0.5)
    doc = box.document(*SLEEP)
    wait = {"path": "/bin/busybox", "args": ["sleep", "1000"]}
    doc["hooks"] = {"prestart": [{"path": "/bin/busybox", "args": ["false"]}], "poststop": [wait]}

    async def main() -> None:
        before = owned()
        with loop.timeout(20), pytest.raises(StepFailed, match="ended with status 1"):
            await box.create(doc)
        assert owned() == before

    loop.run(main())


def test_an_exec_that_has_failed(box: Box) -> None:
    """Its process is ended and its id free, though the client's time is over meanwhile."""

    async def use(container: Container) -> None:
        async def exec_(number: int) -> bool:
            before = owned()
            process = parse_process({"args": ["nonesuch"], "env": [PATH], "cwd": "/"})
            try:
                cut = await cancelled_at(number, container.exec("e1", process))
            except StepFailed:
                cut = False
            assert "e1" not in container.processes
            assert owned() == before, f"await {number}"
            return cut

        await at_each_await(exec_)

    box.during(box.document(*SLEEP), use)


@pytest.mark.parametrize("hooked", [False, True])
def test_start(box: Box, hooked: bool) -> None:
    """It runs, though nobody waits for it."""

    async def main() -> None:
        async def start(number: int) -> bool:
            doc = box.document(*SLEEP)
            doc["hooks"] = {"poststart": [{"path": "/bin/busybox", "args": ["sleep", "0.01"]}]} if hooked else {}
            container = await box.create(doc)
            cut = await cancelled_at(number, container.start())
            await loop.sleep(0)
            await settled(container)
            assert container.status is Status.RUNNING
            await container.remove()
            return cut

        await at_each_await(start)

    loop.run(main())


@pytest.mark.parametrize("kind", (*KINDS, *JOINED))
def test_remove(kind_box: Box, tmp_path: Path, kind: str) -> None:
    """It can be asked for again, and then ends."""
    box, gone = kind_box, tmp_path / "gone"

    async def use(doc: Document) -> None:
        async def remove(number: int) -> bool:
            before = owned()
            container = await box.create(doc)
            await container.start()
            cut = await cancelled_at(number, container.remove())
            if cut:
                await container.remove()
            assert container.cgroup is None
            assert owned() == before, f"await {number}"
            return cut

        await at_each_await(remove)

    doc = document(box, tmp_path, kind)
    doc["process"]["args"] = list(SLEEP)
    doc["hooks"] = {"poststop": [{"path": "/bin/busybox", "args": ["touch", str(gone)]}]}
    loop.run(beside(box, doc, kind, use))
    assert gone.exists()


@pytest.mark.parametrize("name", ["poststart", "poststop"])
def test_the_task_that_runs_hooks(box: Box, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A removal cancels it. The hook is gone then, and the container can be removed."""
    run, at, cuts = hooks.run, 0, 0

    async def run_cancelled(*arguments: Any) -> None:
        nonlocal cuts
        if await cancelled_at(at, run(*arguments)):
            cuts += 1
            raise loop.Cancelled

    monkeypatch.setattr(hooks, "run", run_cancelled)

    async def main() -> None:
        async def live(number: int) -> bool:
            nonlocal at
            before, known, at = owned(), cuts, number
            doc = box.document(*SLEEP)
            doc["hooks"] = leaving_children(name)
            container = await box.create(doc)
            try:
                await container.start()
            except StepFailed as error:
                assert "removed meanwhile" in str(error)
            await container.remove()
            assert owned() == before, f"await {number}"
            return cuts > known

        await at_each_await(live)

    loop.run(main())
    assert cuts > 1


def test_a_limit_that_the_kernel_takes_its_time_for(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowering memory.max reclaims memory within write(2): meanwhile the loop goes round, and a removal ends the wait."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    write = files.write

    def slow(cgroup: int, name: str, value: str) -> None:
        if name == "cgroup.max.depth":
            held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
            select.select([held], [], [], 20)
        write(cgroup, name, value)

    monkeypatch.setattr(files, "write", slow)

    async def use(container: Container) -> None:
        update = loop.spawn(container.update(depth("7")), name="update")
        with loop.timeout(20):
            while True:
                try:
                    release = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError:
                    await loop.sleep(0.005)
        assert not update.done
        os.write(release, b"x")
        await update.wait()
        os.close(release)
        assert container.cgroup is not None
        assert container.cgroup.read("cgroup.max.depth") == "7\n"

    box.during(box.document(*SLEEP), use)


def test_an_update_that_is_refused_leaves_all_as_it_was(box: Box) -> None:
    """Limits and device rules, though the rules come first and some of the limits were taken."""

    async def use(container: Container) -> None:
        probe = ("sh", "-c", "rm -f /dev/x; mknod /dev/x c 249 77 && head -c 0 /dev/x")
        allowed = parse_resources({"devices": [{"allow": True, "access": "rwm"}]})
        resources = replace(allowed, unified={"cgroup.max.depth": "9", "cgroup.max.descendants": "many"})
        for _ in range(2):
            with pytest.raises(AgentError, match=r"linux\.resources\.unified\.cgroup\.max\.descendants"):
                await container.update(resources)
            assert container.cgroup is not None
            assert container.cgroup.read("cgroup.max.depth") == "max\n"
            assert "Operation not permitted" in (await execute(container, *probe)).stderr
            container.processes.pop("e1").close()

    box.during(box.document(*SLEEP), use)


def test_more_device_rules_than_are_kept(box: Box) -> None:
    """Programs are kept for a while; a group's own is replaced in one step, however many came in between."""

    async def use(container: Container) -> None:
        rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
        for minor in range(80):
            rule = {"allow": True, "type": "c", "major": 249, "minor": minor, "access": "rwm"}
            await container.update(parse_resources({"devices": [*rules, rule]}))
        probe = "for i in 78 79; do mknod /dev/x$i c 249 $i && head -c 0 /dev/x$i; done"
        lines = (await execute(container, "sh", "-c", probe)).stderr.splitlines()
        assert ["Operation not permitted" in lines[0], "No such device" in lines[1]] == [True, True]
        container.processes.pop("e1").close()

    box.during(box.document(*SLEEP), use)
