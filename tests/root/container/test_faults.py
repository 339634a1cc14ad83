"""Every system call of a container's life fails in turn, in the agent and in the child: an error each time, and nothing stays.

The `box` fixture compares mounts, processes, descriptors and groups afterwards; here after each life.
"""

import errno
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container.container import Container
from agent.errors import AgentError
from tests.root.conftest import _children, _descriptors
from tests.root.container.faults import Faults
from tests.root.container.kinds import KINDS, document
from tests.root.container_helpers import Box, Document, execute

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

NUMBERS = (errno.EMFILE, errno.ENOMEM, errno.EIO)
ENOUGH = 3000
"""More calls than a life makes: a sweep that gets here does not end."""
Part = Callable[[Box, Document, Faults, int, int], Coroutine[Any, Any, None]]


async def create(box: Box, doc: Document, faults: Faults, at: int, number: int) -> None:
    """Fails while it is created; once more without, if only something that does not matter has failed."""
    with faults.failing(at, number):
        container = await box.create(doc)
    await container.remove()


async def start(box: Box, doc: Document, faults: Faults, at: int, number: int) -> None:
    """Fails while its program is let go."""
    container = await box.create(doc)
    try:
        with faults.failing(at, number):
            await container.start()
            await container.init.wait()
    finally:
        await container.remove()


async def run_another(box: Box, doc: Document, faults: Faults, at: int, number: int) -> None:
    """Fails while one more program is run; the first one's must not suffer."""
    doc["process"]["args"] = ["sleep", "1000"]
    container = await box.create(doc)
    try:
        await container.start()
        with faults.failing(at, number):
            await execute(container, "true")
    finally:
        assert container.init.exit_status is None
        await container.remove()


async def remove(box: Box, doc: Document, faults: Faults, at: int, number: int) -> None:
    """Fails while it is removed; the second attempt succeeds."""
    container = await box.create(doc)
    await container.start()
    try:
        with faults.failing(at, number):
            await container.remove()
    finally:
        await _remove_again(container)


async def _remove_again(container: Container) -> None:
    await container.remove()


def resources(box: Box) -> tuple[list[str], list[str], set[str]]:
    """Mounts (of ours: others use this machine too), children and descriptors."""
    places = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = (str(box.root), str(box.host.state_dir.parent))
    return [place for place in places if place.startswith(ours) or place.count("/") == 1], _children(), _descriptors()


def sweep(box: Box, part: Part, faults: Faults, doc: Document, number: int) -> list[str]:
    """Let the first call fail, the second, and so on; the names of those whose failure was an error to the caller."""
    noticed = []
    before = resources(box)
    for at in range(1, ENOUGH):
        try:
            loop.run(part(box, doc, faults, at, number))
        except (AgentError, OSError) as error:
            noticed.append(f"{faults.failed}: {error}")
        assert resources(box) == before, f"call {at}, {faults.failed}"
        assert [path for path in box.host.cgroup_root.iterdir() if path.is_dir()] == [], f"call {at}, {faults.failed}"
        if not faults.failed and faults.count < at:
            return noticed
    raise AssertionError("the sweep does not end")


@pytest.mark.parametrize("number", NUMBERS, ids=[errno.errorcode[number] for number in NUMBERS])
@pytest.mark.parametrize("part", [create, start, run_another, remove])
@pytest.mark.parametrize("kind", KINDS)
def test_each_call_of_the_agent_fails_in_turn(
    box: Box, tmp_path: Path, kind: str, part: Part, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    doc = document(box, tmp_path, kind)
    loop.run(part(box, doc, faults := Faults(monkeypatch, in_child=False), 0, number))
    noticed = sweep(box, part, faults, doc, number)
    assert len(noticed) >= (20 if part is create else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_call_of_the_child_fails_in_turn(box: Box, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in the child, whose count its parent does not see: until a whole life succeeds, and some more."""
    doc = document(box, tmp_path, kind)
    faults = Faults(monkeypatch, in_child=True)
    before = resources(box)
    failures, successes = 0, 0
    for at in range(1, ENOUGH):
        try:
            loop.run(start_failing_in_child(box, doc, faults, at))
            successes += 1
        except AgentError:
            failures, successes = failures + 1, 0
        assert resources(box) == before, f"call {at}"
        if successes > 40:
            break
    assert failures > 100


async def start_failing_in_child(box: Box, doc: Document, faults: Faults, at: int) -> None:
    """The whole of a child's life up to its program."""
    with faults.failing(at, errno.EIO):
        container = await box.create(doc)
        try:
            await container.start()
        finally:
            await container.remove()


@pytest.mark.parametrize("last", ["a", "b"])
def test_a_directory_above_two_groups_goes_with_the_last_of_them(box: Box, last: str) -> None:
    """Whichever it was made for."""

    async def main() -> None:
        made = {}
        for name in ("a", "b"):
            doc = box.document("sleep", "100")
            doc["linux"]["cgroupsPath"] = f"/pods/pod/{name}"
            made[name] = await Box(box.root, box.host, name).create(doc)
        for name in sorted(made, key=lambda name: name == last):
            assert (box.host.cgroup_root / "pods/pod").is_dir()
            await made[name].remove()

    loop.run(main())
