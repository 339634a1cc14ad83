"""PrepareTemplate on an agent outside of a guest: afterwards the calls of an ordinary container import nothing."""

from pathlib import Path

import pytest

from innkeeper.client import RpcError
from innkeeper.image import process_to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2 as pb
from innkeeper.wire.pb.oci_pb2 import LinuxResources
from tests.needs import needs
from tests.root.agent_helpers import NativeAgent, native_agent, shim_document
from tests.root.container_helpers import PATH

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]

SHM = pb.Storage(
    driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point="/run/kata-containers/sandbox/shm", options=["mode=1777", "size=1m"]
)


def imported(log: str) -> list[str]:
    """The modules that a part of the log shows as imported (`python -X importtime`), in order."""
    return [line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")]


def test_a_template_has_imported_all_that_an_ordinary_container_needs(container_root: Path, tmp_path: Path) -> None:
    with native_agent(tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"}) as guest:
        guest.agent.prepare_template()
        before = guest.log
        assert "agent.network.interface" in imported(before), "the log does not show imports"
        _run_a_container(guest, container_root)
        assert imported(guest.log[len(before) :]) == []


def _run_a_container(guest: NativeAgent, root: Path) -> None:
    """Make the calls of a run: network, files, a container with rules for devices and volumes, another process, figures."""
    guest.agent.list_interfaces()
    guest.agent.list_routes()
    guest.sandbox(storages=[SHM], dns=["nameserver 192.0.2.1"])
    guest.agent.copy_file(
        pb.CopyFileRequest(
            path="/run/kata-containers/shared/containers/hosts", file_size=3, file_mode=0o100644, dir_mode=0o755, data=b"abc"
        )
    )
    spec = shim_document(root, "sleep", "1000")
    shared = {"type": "bind", "source": "/run/kata-containers/shared/containers/hosts", "options": ["bind", "ro"]}
    spec["mounts"] = [*spec["mounts"], {"destination": "/dev/end", **shared}]
    spec["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    guest.start("c1", spec)
    assert guest.exec("c1", "e1", "true").status == 0
    guest.agent.exec_process("c1", "t1", process_to_proto({"args": ["true"], "env": [PATH], "cwd": "/", "user": {}, "terminal": True}))
    guest.agent.tty_win_resize("c1", "t1", 24, 80)
    guest.agent.wait_process("c1", "t1", 60)
    assert guest.agent.stats_container("c1").HasField("cgroup_stats")
    guest.agent.update_container("c1", LinuxResources())
    guest.agent.pause_container("c1")
    guest.agent.resume_container("c1")
    assert guest.agent.metrics()
    assert [each.id for each in guest.agent.list_containers()] == ["c1"]
    assert guest.agent.list_processes("c1")
    guest.agent.signal_process("c1", "", 9)
    guest.agent.wait_process("c1", "c1", 60)
    guest.agent.remove_container("c1")


def test_a_guest_in_use_is_no_template(container_root: Path, tmp_path: Path) -> None:
    with native_agent(tmp_path) as guest:
        guest.sandbox()
        with pytest.raises(RpcError) as refused:
            guest.agent.prepare_template()
        assert refused.value.code == status.FAILED_PRECONDITION
