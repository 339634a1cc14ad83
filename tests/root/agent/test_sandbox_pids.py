"""One pid namespace for the containers of a sandbox."""

from pathlib import Path

import pytest

from innkeeper.client import RpcError
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2
from tests.needs import needs
from tests.root.agent_helpers import native_agent, shim_document

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]


def test_shared_pid_namespace(tmp_path: Path, container_root: Path) -> None:
    """The first container's is the sandbox's: others see its processes, and end with it."""
    with native_agent(tmp_path) as guest:
        guest.sandbox(sandbox_pidns=True)
        guest.start("pause", shim_document(container_root, "sleep", "1000"), sandbox_pidns=True)
        seen = guest.run("second", shim_document(container_root, "sh", "-c", "cat /proc/1/cmdline; echo $$"), sandbox_pidns=True)
        assert seen.stdout.startswith("sleep\x001000\x00")
        assert int(seen.stdout.rpartition("\0")[2]) > 1

        apart = guest.run("apart", shim_document(container_root, "sh", "-c", "echo $$"))
        assert apart.stdout == "1\n"

        guest.start("third", shim_document(container_root, "sleep", "1000"), sandbox_pidns=True)
        listed = guest.exec("third", "e1", "ps", "-o", "args")
        assert listed.stdout.count("sleep 1000") == 2
        guest.agent.signal_process("pause", "", 9)
        assert guest.agent.wait_process("third", "third", 30) == 128 + 9
        with pytest.raises(RpcError, match="pid namespace has ended with its first container") as caught:
            guest.create("late", shim_document(container_root, "true"), sandbox_pidns=True)
        assert caught.value.code == status.FAILED_PRECONDITION


def test_sigterm_in_a_shared_namespace(tmp_path: Path, container_root: Path) -> None:
    """Only the first process of a pid namespace would drop a signal that it does not handle: only there it becomes SIGKILL."""
    with native_agent(tmp_path) as guest:
        guest.sandbox()
        guest.start("pause", shim_document(container_root, "sleep", "1000"))
        guest.start("beside", shim_document(container_root, "sleep", "1000"), sandbox_pidns=True)
        for id, ended in (("beside", 128 + 15), ("pause", 128 + 9)):
            guest.do("SignalProcess", agent_pb2.SignalProcessRequest(container_id=id, signal=15))
            assert guest.agent.wait_process(id, id, 30) == ended


def test_the_pid_namespace_of_another_container(tmp_path: Path, container_root: Path) -> None:
    """As `kubectl debug --target` asks for: not that of the first container."""
    with native_agent(tmp_path) as guest:
        guest.sandbox()
        guest.start("first", shim_document(container_root, "sleep", "1000"))
        guest.start("target", shim_document(container_root, "sleep", "2000"))
        document = shim_document(container_root, "ps", "-o", "pid,args")
        others = [entry for entry in document["linux"]["namespaces"] if entry["type"] != "pid"]
        document["linux"]["namespaces"] = [*others, {"type": "pid", "path": "container:target"}]
        lines = guest.run("debugger", document).stdout.splitlines()
        assert lines[1].split() == ["1", "sleep", "2000"] and "sleep 1000" not in "".join(lines)

        guest.agent.signal_process("target", "", 9)
        guest.agent.wait_process("target", "target", 30)
        for path, code, reason in (
            ("container:target", status.FAILED_PRECONDITION, "the pid namespace of container 'target' has ended with it"),
            ("container:none", status.NOT_FOUND, "none"),
        ):
            document["linux"]["namespaces"] = [*others, {"type": "pid", "path": path}]
            with pytest.raises(RpcError, match=reason) as caught:
                guest.create("late", document)
            assert caught.value.code == code
