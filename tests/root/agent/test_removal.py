"""Other calls while a container is being removed: a hook after its end, which waits for us, keeps it in between."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper.client import RpcError
from innkeeper.image.proto import process_to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2 as pb
from tests.eventually import eventually
from tests.needs import needs
from tests.root.agent_helpers import NativeAgent, native_agent, shim_document
from tests.root.container_helpers import PATH

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]

SECONDS = 30.0
HELD = "/run/kata-containers/sandbox/ephemeral/held"


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[NativeAgent]:
    with native_agent(tmp_path) as agent:
        yield agent


@contextmanager
def being_removed(guest: NativeAgent, root: Path, folder: Path) -> Iterator[None]:
    """Container c1, with a second process e1 and a volume, between the end of its processes and its own."""
    begun, go_on = folder / "begun", folder / "go-on"
    os.mkfifo(go_on)
    spec = shim_document(root, "sleep", "1000")
    script = f"echo > {begun}; cat {go_on}"
    spec["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]}
    guest.sandbox()
    volume = pb.Storage(driver="bind", source="/etc", fstype="bind", mount_point=HELD, options=["rbind"])
    guest.start("c1", spec, storages=[volume])
    process = process_to_proto({"args": ["sleep", "1000"], "env": [PATH], "cwd": "/", "user": {"uid": 0, "gid": 0}})
    guest.agent.exec_process("c1", "e1", process)
    removal = threading.Thread(target=lambda: guest.agent.remove_container("c1"))
    removal.start()
    try:
        eventually(begun.exists)
        yield
    finally:
        go_on.write_bytes(b"")
        removal.join(SECONDS)
    assert not removal.is_alive()


def test_a_status_that_is_known_is_told(guest: NativeAgent, container_root: Path, tmp_path: Path) -> None:
    """Of the first process by any of its names and of others; afterwards there is no such container."""
    with being_removed(guest, container_root, tmp_path):
        assert [guest.agent.wait_process("c1", name, SECONDS) for name in ("c1", "", "e1")] == [137, 137, 137]
    with pytest.raises(RpcError) as caught:
        guest.agent.wait_process("c1", "c1", SECONDS)
    assert caught.value.code == status.NOT_FOUND


def test_a_second_removal_waits_for_the_first(guest: NativeAgent, container_root: Path, tmp_path: Path) -> None:
    with being_removed(guest, container_root, tmp_path):
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            guest.do("RemoveContainer", pb.RemoveContainerRequest(container_id="c1"), 0.2)
        second = threading.Thread(target=lambda: guest.agent.remove_container("c1"))
        second.start()
    second.join(SECONDS)
    assert not second.is_alive()
    assert HELD not in guest.mounts
    assert guest.run("c1", shim_document(container_root, "true")).status == 0


def test_the_sandboxs_end_meanwhile(guest: NativeAgent, container_root: Path, tmp_path: Path) -> None:
    """Both are answered, and the agent ends."""
    ended = threading.Thread(target=guest.agent.destroy_sandbox)
    with being_removed(guest, container_root, tmp_path):
        ended.start()
        with pytest.raises(RpcError, match="the sandbox is at its end"):
            while True:
                guest.create("c2", shim_document(container_root, "true"))
                guest.agent.remove_container("c2")
    ended.join(SECONDS)
    assert not ended.is_alive()
    guest.process.wait(SECONDS)
    assert "Traceback" not in guest.log
