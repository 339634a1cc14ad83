"""What a pod refuses before it boots a VM."""

import json
import os
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim.errors import CallError
from innkeeper.shim.events import Publisher
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.pod import Pod
from innkeeper.wire import status


@pytest.mark.parametrize("field", ["stdout", "stderr"])
def test_a_log_that_cannot_be_written(field: str, tmp_path: Path) -> None:
    """Nobody waits for a VM to hear that: the bundle is not even read."""
    pod = Pod("default", Publisher("", "default"), tmp_path / "socket")
    request = pb.CreateTaskRequest(id="one", bundle=str(tmp_path))
    setattr(request, field, "binary:///no/such/logger")
    with pytest.raises(CallError, match="no such logging program: /no/such/logger") as caught:
        pod.create(request)
    assert caught.value.code == status.NOT_FOUND and pod.is_empty()


def test_the_pid_namespace_of_a_container_elsewhere(tmp_path: Path) -> None:
    """As `nerdctl run --pid container:ID` asks for: that is in another VM."""
    namespaces = [{"type": kind} for kind in ("ipc", "uts", "mount", "network")]
    linux = {"namespaces": [*namespaces, {"type": "pid", "path": f"/proc/{os.getpid()}/ns/pid"}]}
    document = {"process": {"args": ["sh"], "cwd": "/"}, "root": {"path": "rootfs"}, "linux": linux}
    (tmp_path / "config.json").write_text(json.dumps(document))
    pod = Pod("default", Publisher("", "default"), tmp_path / "socket")
    with pytest.raises(InnkeeperError, match=r"linux.namespaces\[pid\]: /proc/\d+/ns/pid is of no container in this VM"):
        pod.create(pb.CreateTaskRequest(id="one", bundle=str(tmp_path)))
    assert pod.is_empty()
