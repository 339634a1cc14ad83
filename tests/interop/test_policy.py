"""A pod under a policy, by the annotation that Kata's shim makes a SetPolicy of."""

import base64
from collections.abc import Iterator

import pytest

from tests.interop.node import IMAGE, Node
from tests.interop.pods import Pod
from tests.interop.test_pods import INNKEEPER
from tests.interop.test_shim import pytestmark as pytestmark

ANNOTATION = "io.katacontainers.config.agent.policy"
POLICY = f"""\
version = 1
name = "interop"
rpcs = ["CreateSandbox", "DestroySandbox", "CreateContainer", "StartContainer", "RemoveContainer", "ExecProcess", "SignalProcess",
        "WaitProcess", "ReadStdout", "ReadStderr", "WriteStdin", "CloseStdin", "StatsContainer", "UpdateInterface", "UpdateRoutes",
        "AddARPNeighbors", "GetGuestDetails", "GetOOMEvent", "RemoveStaleVirtiofsShareMounts"]
images = ["{IMAGE}", "(none)"]
commands = [["sh", "-c", "exec sleep 1000"], ["sleep", "1000000000"]]
exec = [["cat", "/proc/self/status"], ["head", "-n", "1"]]
storages = ["standard"]
mounts = ["standard", {{destination = "/etc/*", type = "bind"}}]
hooks = []
devices = []
"""
"""Just what a pod that does nothing else needs of the calls, and what is tried below.

containerd 1.6 does not say which image a pod's own container has."""


@pytest.fixture(scope="module")
def pod(node: Node) -> Iterator[Pod]:
    made = Pod(node, "policy", INNKEEPER, {ANNOTATION: base64.b64encode(POLICY.encode()).decode()})
    yield made
    made.remove()


def test_what_it_allows(pod: Pod) -> None:
    id = pod.start("main", "exec sleep 1000")
    assert "Seccomp:" in pod.crictl("exec", id, "cat", "/proc/self/status")
    assert pod.crictl("exec", "-i", id, "head", "-n", "1", data=b"word\n") == "word"
    pod.crictl("stats", id)
    denied = pod.attempt("exec", id, "cat", "/etc/shadow")
    assert denied.returncode != 0
    assert b"ExecProcess is blocked by policy: rule 'exec' of policy 'interop'" in denied.stderr
    denied = pod.attempt("update", "--memory", str(64 << 20), id)
    assert b"UpdateContainer is blocked by policy: rule 'rpcs' of policy 'interop'" in denied.stderr
    pod.crictl("stop", id)


def test_a_command_that_it_does_not_list(pod: Pod) -> None:
    with pytest.raises(AssertionError, match=r"blocked by policy: rule \W+commands\W+ of policy"):
        pod.start("other", "exec sleep 2000")
    assert pod.ready()
