"""A mount namespace that a container joins: used as the specification has it, and never the machine's."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.container.container import Container
from agent.errors import Refused
from tests.mounts import mounts
from tests.needs import needs
from tests.root.container_helpers import Box, Document, execute

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "module:prctl", "busybox", "unshare")]


@pytest.fixture
def holder() -> Iterator[int]:
    """A process in a mount namespace of its own."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def _joining(box: Box, path: str, *args: str) -> Document:
    document = box.document(*args)
    entries = [entry for entry in document["linux"]["namespaces"] if entry["type"] != "mount"]
    document["linux"]["namespaces"] = [*entries, {"type": "mount", "path": path}]
    return document


def test_the_namespace_is_joined_and_nothing_comes_out_of_it(box: Box, holder: int, tmp_path: Path) -> None:
    wanted = os.readlink(f"/proc/{holder}/ns/mnt")
    before = mounts(tmp_path.parent)

    async def look(container: Container) -> tuple[str, str]:
        inside = os.readlink(f"/proc/{container.init.pid}/ns/mnt")
        done = await execute(container, "sh", "-c", "ls -d /bin/busybox /proc/self /host 2>/dev/null; ls /tmp")
        return inside, done.stdout

    inside, told = box.during(_joining(box, f"/proc/{holder}/ns/mnt", "sleep", "1000"), look)
    assert inside == wanted
    assert told.split() == ["/bin/busybox", "/proc/self"]
    assert mounts(tmp_path.parent) == before


def test_the_machines_own_is_refused(box: Box, holder: int) -> None:
    for path in ("/proc/self/ns/mnt", "/proc/1/ns/mnt"):
        with pytest.raises(Refused, match=r"the machine's own|Permission denied"):
            box.run(_joining(box, path, "true"))
    with pytest.raises(Refused, match="not a mnt namespace"):
        box.run(_joining(box, "/proc/self/ns/net", "true"))


def test_a_new_user_namespace_may_not_mount_in_it(box: Box, holder: int) -> None:
    document = _joining(box, f"/proc/{holder}/ns/mnt", "true")
    document["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        document["linux"][key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    with pytest.raises(Refused, match="may not mount in it"):
        box.run(document)
