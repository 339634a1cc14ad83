"""The command line of the shim, and what `start` answers to which containerd."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from innkeeper.shim import bootstrap, daemon
from innkeeper.shim.arguments import Arguments, UsageError, parse
from innkeeper.shim.pb import containerd_pb2 as pb

LINE = ["-namespace", "default", "-address", "/run/c.sock", "-publish-binary", "/usr/bin/containerd", "-id", "one"]
ARGUMENTS = Arguments("default", "/run/c.sock", "/usr/bin/containerd", "one", action="start")
ADDRESS = "unix:///run/containerd/s/abc"


def test_the_command_line_of_containerd() -> None:
    assert parse([*LINE, "start"]) == ARGUMENTS
    deleting = parse([*LINE, "-bundle=/b", "-debug", "delete"])
    assert (deleting.bundle, deleting.debug, deleting.action) == ("/b", True, "delete")
    assert parse(["-info"]).info
    assert parse(["--v"]).version


@pytest.mark.parametrize("words", [["-no-such"], ["-id"], ["stop"], ["start", "delete"]])
def test_other_command_lines_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)


def test_a_containerd_that_writes_parameters_gets_a_message() -> None:
    params = pb.BootstrapParams(instance_id="one", namespace="default", log_level=-4)
    found = bootstrap.parameters(params.SerializeToString(), ARGUMENTS)
    assert found == params
    answer = pb.BootstrapResult.FromString(bootstrap.answer(ADDRESS, found))
    assert (answer.version, answer.address, answer.protocol) == (3, ADDRESS, "ttrpc")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pb.Any(type_url="runtimeoptions.v1.Options", value=b"\x12\x02/x").SerializeToString(),
        pb.Any(type_url="one", value=b"\xff\xfe").SerializeToString(),
        pb.BootstrapParams(instance_id="another", namespace="default").SerializeToString(),
    ],
)
def test_an_earlier_containerd_gets_the_plain_address(data: bytes) -> None:
    found = bootstrap.parameters(data, ARGUMENTS)
    assert bootstrap.answer(ADDRESS, found) == ADDRESS.encode()


def test_a_pods_containers_have_one_group(tmp_path: Path) -> None:
    assert bootstrap.group(tmp_path, "one") == "one"
    for annotations, group in (
        ({}, "one"),
        ({"io.kubernetes.cri.sandbox-id": "pod"}, "pod"),
        ({"io.kubernetes.cri.sandbox-id": "pod", "io.containerd.runc.v2.group": "group"}, "group"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"annotations": annotations}))
        assert bootstrap.group(tmp_path, "one") == group
    path = bootstrap.socket_path("", ARGUMENTS, "pod")
    assert path == bootstrap.socket_path("", ARGUMENTS, "pod")
    assert path != bootstrap.socket_path("", ARGUMENTS, "one")
    assert len(str(path)) < 107


def test_a_socket_is_joined_if_it_is_served_and_taken_over_if_not(tmp_path: Path) -> None:
    path = tmp_path / "s" / "socket"
    listener = daemon.listen(path)
    assert listener is not None
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert daemon.listen(path) is None
    listener.close()
    again = daemon.listen(path)
    assert again is not None
    with again, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
