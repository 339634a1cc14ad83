"""The generated message modules are what the generator makes of the .proto files, and speak protobuf's own bytes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from innkeeper.wire.messages import request_class
from innkeeper.wire.pb import agent_pb2, guest_pb2, health_pb2, oci_pb2, types_pb2
from tests.generate_messages import SOURCES, generate
from tests.paths import ROOT


@pytest.mark.parametrize("package", SOURCES, ids=[package.name for package in SOURCES])
def test_committed_modules_are_generated(package: Path, tmp_path: Path) -> None:
    generate(package, tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made
    assert made == {path.name: path.read_text() for path in (package / "pb").glob("*_pb2.py*")}


def test_services_name_every_method() -> None:
    assert len(agent_pb2.SERVICES["grpc.AgentService"]) == 42
    assert list(health_pb2.SERVICES["grpc.Health"]) == ["Check", "Version"]
    assert agent_pb2.SERVICES["grpc.AgentService"]["WaitProcess"] == (agent_pb2.WaitProcessRequest, agent_pb2.WaitProcessResponse)
    assert "BootTimeline" in guest_pb2.SERVICES["innkeeper.v1.Guest"]


def test_bytes_equal_those_of_the_public_library() -> None:
    ours = oci_pb2.Spec(Version="1.2.0", Annotations={"a": "b"})
    ours.Process.Args.extend(["echo", "hello"])
    ours.Linux.Seccomp.Syscalls.add(Names=["mount"], errnoret=0)
    file = descriptor_pb2.FileDescriptorProto()
    oci_pb2.Spec.DESCRIPTOR.file.CopyToProto(file)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    theirs: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("grpc.Spec"))()
    theirs.ParseFromString(ours.SerializeToString())
    assert theirs.SerializeToString(deterministic=True) == ours.SerializeToString(deterministic=True)
    assert theirs.Linux.Seccomp.Syscalls[0].WhichOneof("ErrnoRet") == "errnoret"


def test_classes_are_made_when_they_are_asked_for() -> None:
    """Making all of them took a tenth of what PID 1 loads after its first answer."""
    code = (
        "from innkeeper.wire import messages\n"
        "from innkeeper.wire.pb import agent_pb2, oci_pb2\n"
        "assert not messages._CLASSES\n"
        "agent_pb2.CreateContainerRequest().OCI.Process.Args.append('a')\n"
        "assert list(messages._CLASSES) == ['grpc.CreateContainerRequest']\n"
        "assert type(agent_pb2.CreateContainerRequest().OCI) is oci_pb2.Spec\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_names_of_a_module() -> None:
    assert guest_pb2.BootTimelineResponse is guest_pb2.BootTimelineResponse
    assert types_pb2.v6 == 1
    assert request_class("grpc.AgentService", "CreateSandbox") is agent_pb2.CreateSandboxRequest
    with pytest.raises(KeyError):
        request_class("grpc.AgentService", "Absent")
    with pytest.raises(AttributeError, match="Absent"):
        _ = agent_pb2.Absent  # type: ignore[attr-defined]


def test_threads_that_ask_at_once_get_one_class() -> None:
    """In an interpreter of its own: the first class of a process takes the longest, and lets other threads run."""
    program = """
from threading import Barrier, Thread
from innkeeper.wire.pb import agent_pb2
barrier, found = Barrier(8), []
def ask():
    barrier.wait()
    found.append(agent_pb2.CreateContainerRequest)
threads = [Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), len(set(map(id, found))))
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == "8 1\n"
