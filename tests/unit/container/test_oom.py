"""Each process that the kernel kills because memory ran out is reported once, however it is noticed.

Plain files stand for those of the group.
"""

from pathlib import Path

import pytest

from agent import loop
from agent.container.cgroup.manager import Cgroup
from agent.container.container import Container
from agent.container.host_context import HostContext
from agent.container.spec.document import parse_spec


class Group:
    """A folder that looks like a container's group."""

    def __init__(self, folder: Path, kills: int = 0) -> None:
        self.folder = folder
        self.tell(kills)

    def tell(self, kills: int, populated: bool = True) -> None:
        """The kernel's files from now on; the count of kills before what tells of the end, as the kernel does."""
        (self.folder / "memory.events").write_text(f"low 0\nhigh 9\noom {kills}\noom_kill {kills}\n")
        (self.folder / "cgroup.events").write_text(f"populated {int(populated)}\nfrozen 0\n")


async def until(told: list[int], wanted: list[int]) -> None:
    with loop.timeout(20):
        while told != wanted:
            await loop.sleep(0.005)


def watched(tmp_path: Path) -> Container:
    linux = {"namespaces": [{"type": "mount"}]}
    spec = parse_spec({"ociVersion": "1.2.0", "root": {"path": "/"}, "process": {"args": ["x"], "cwd": "/"}, "linux": linux})
    container = Container("c1", spec, HostContext(tmp_path, tmp_path))
    container.cgroup = Cgroup(tmp_path, [], mknod=False)
    return container


@pytest.mark.parametrize("earlier", [0, 4])
def test_each_is_told_once(tmp_path: Path, earlier: int) -> None:
    """Two at once are two; what was counted before the container came is nobody's; the last one, which ends it, is told too."""
    group = Group(tmp_path, earlier)
    container = watched(tmp_path)

    async def main() -> list[int]:
        told: list[int] = []
        watch = loop.spawn(container.watch_oom(told.append), name="oom")
        await loop.sleep(0)
        group.tell(earlier + 1)
        await until(told, [1])
        group.tell(earlier + 1)
        group.tell(earlier + 3)
        await until(told, [1, 2])
        group.tell(earlier + 4, populated=False)
        with loop.timeout(20):
            await watch.wait()
        return told

    assert loop.run(main()) == [1, 2, 1]
    assert container.cgroup is not None
    container.cgroup.close()


def test_without_a_memory_controller_there_is_nothing_to_tell(tmp_path: Path) -> None:
    Group(tmp_path)
    (tmp_path / "memory.events").unlink()
    container = watched(tmp_path)
    loop.run(container.watch_oom(lambda _: pytest.fail("told")))
    assert container.cgroup is not None
    container.cgroup.close()
