"""The thread whose id is a container's process id for containerd."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.shim.stand_in import StandIn
from tests.eventually import eventually

pytestmark = pytest.mark.root


@pytest.fixture
def namespace() -> Iterator[Path]:
    name = f"ink-stand-in-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield Path("/run/netns", name)
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_each_is_found_by_its_id_in_the_pods_network(namespace: Path) -> None:
    first, second = StandIn(str(namespace)), StandIn("")
    assert len({first.id, second.id, os.getpid()}) == 3
    assert os.stat(f"/proc/{first.id}/ns/net").st_ino == os.stat(namespace).st_ino
    assert os.stat(f"/proc/{second.id}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
    for one in (first, second, first):
        one.close()
    eventually(lambda: not any(Path(f"/proc/{one.id}").exists() for one in (first, second)))


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(OSError, match="No such file"):
        StandIn("/run/netns/none")
