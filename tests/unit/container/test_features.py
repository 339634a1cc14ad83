"""The features document: in the specification's format, from the parser's tables, and as the kernel answers."""

import os
from pathlib import Path

import pytest

from agent.container.features import features
from agent.container.spec import seccomp as spec_seccomp
from agent.container.spec.document import parse_spec
from agent.container.state import OCI_VERSION
from agent.linux import mount as m
from agent.linux import numa
from agent.linux import seccomp as floor
from tests.unit.container.documents import changed

pytestmark = pytest.mark.needs("module:pyseccomp")


def test_versions_are_those_the_parser_takes() -> None:
    document = features()
    for key in ("ociVersionMin", "ociVersionMax"):
        assert parse_spec(changed("ociVersion", document[key])).version == document[key]
    assert document["ociVersionMax"] == OCI_VERSION


def test_every_mount_option_is_taken() -> None:
    words = features()["mountOptions"]
    assert {"ro", "rro", "noatime", "rstrictatime", "rslave", "sync", "remount", "tmpcopyup"} <= set(words)
    for word in words:
        options = [word] if word not in ("idmap", "ridmap") else ["bind", word]
        mount = {"destination": "/d", "type": "tmpfs", "source": "/s", "options": options}
        if options[0] == "bind":
            mount |= {key: [{"containerID": 0, "hostID": 1, "size": 1}] for key in ("uidMappings", "gidMappings")}
        parse_spec(changed("mounts[0]", mount))


def test_every_seccomp_word_is_taken() -> None:
    seccomp = features()["linux"]["seccomp"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    for action in seccomp["actions"]:
        rule = {"names": ["mkdir"], "action": action}
        parse_spec(changed("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s", "syscalls": [rule]}))
    for architecture in seccomp["archs"]:
        parse_spec(changed("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [architecture]}))


def test_namespaces_are_those_of_the_kernel() -> None:
    kernels = {name.removesuffix("_for_children") for name in os.listdir("/proc/self/ns")}
    told = set(features()["linux"]["namespaces"])
    assert ("user" in told, "time" in told) == ("user" in kernels, "time" in kernels)
    assert "network" in told and "net" not in told


def test_controllers_are_those_of_the_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu rdma\n")
    document = features(tmp_path)
    assert document["annotations"]["innkeeper.cgroup.controllers"] == "cpu rdma"
    assert document["linux"]["cgroup"]["rdma"] is True
    assert features()["linux"]["cgroup"]["rdma"] is False


def test_what_the_kernel_does_not_know_is_told_apart() -> None:
    """The probes themselves: something known, something that no kernel knows."""
    assert (floor.knows_flag(floor.SECCOMP_FILTER_FLAG_LOG), floor.knows_flag(1 << 20)) == (True, False)
    assert (floor.knows_action(spec_seccomp.ACTIONS["SCMP_ACT_ALLOW"]), floor.knows_action(0x12340000)) == (True, False)
    assert (m.knows_attribute(m.MOUNT_ATTR_RDONLY), m.knows_attribute(1 << 30)) == (True, False)
    assert numa.knows_mode(99) is False
