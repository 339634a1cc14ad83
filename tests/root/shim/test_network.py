"""A pod's interface and the tap of its VM, in a network namespace of the test's own."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim.network import PodNetwork
from tests.needs import needs

pytestmark = [pytest.mark.root, needs("ip", "module:pyroute2")]
MAC = "02:00:00:00:00:07"


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def namespace() -> Iterator[Path]:
    """Beside it, in `NAME-host`, is what would be the host's end of the pod's link."""
    name = f"ink-test-{os.getpid()}"
    for one in (name, f"{name}-host"):
        ip("netns", "add", one)
    yield Path("/run/netns") / name
    for one in (name, f"{name}-host"):
        ip("netns", "del", one)


def test_the_interface_is_found_and_redirected(namespace: Path, tmp_path: Path) -> None:
    inside = ("-n", namespace.name)
    peer = ("peer", "name", "pod", "netns", f"{namespace.name}-host")
    ip(*inside, "link", "add", "eth0", "address", MAC, "mtu", "9000", "type", "veth", *peer)
    ip(*inside, "link", "set", "eth0", "up")
    ip(*inside, "address", "add", "10.9.0.2/24", "dev", "eth0")
    ip(*inside, "route", "add", "default", "via", "10.9.0.1")
    network = PodNetwork(namespace, tmp_path)
    try:
        assert network.tap is not None
        assert (network.tap.mac, network.tap.namespace) == (MAC, namespace)
        tap = os.dup(network.tap.fd)  # as QEMU has it
        found = network.connect()
        assert found is not None
        assert (found.mac, found.mtu, found.addresses, found.routes) == (MAC, 9000, ((4, "10.9.0.2", 24),), ((4, "", "10.9.0.1"),))
        assert "mtu 9000" in ip(*inside, "link", "show", "innkeeper0")
        for one, other in (("eth0", "innkeeper0"), ("innkeeper0", "eth0")):
            filters = subprocess.run(["tc", *inside, "filter", "show", "dev", one, "ingress"], check=True, capture_output=True, text=True)
            assert f"Egress Redirect to device {other}" in filters.stdout
        os.close(tap)
        assert "innkeeper0" not in ip(*inside, "link", "show")
    finally:
        network.close()


def test_a_namespace_without_an_interface(namespace: Path, tmp_path: Path) -> None:
    network = PodNetwork(namespace, tmp_path)
    assert network.tap is None
    assert network.connect() is None
    network.close()


def test_a_namespace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match="No such file or directory"):
        PodNetwork(tmp_path / "none", tmp_path)
