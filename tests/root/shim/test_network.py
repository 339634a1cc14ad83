"""A pod's interface and the tap of its VM, in a network namespace of the test's own."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim.network import PodNetwork, Route
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


def add_link(namespace: Path, name: str, mac: str, mtu: int) -> None:
    peer = ("peer", "name", f"pod-{name}", "netns", f"{namespace.name}-host")
    ip("-n", namespace.name, "link", "add", name, "address", mac, "mtu", str(mtu), "type", "veth", *peer)
    ip("-n", namespace.name, "link", "set", name, "up")
    ip("-n", f"{namespace.name}-host", "link", "set", f"pod-{name}", "up")


def test_interfaces_are_found_and_redirected(namespace: Path, tmp_path: Path) -> None:
    inside = ("-n", namespace.name)
    other_mac = "02:00:00:00:00:08"
    add_link(namespace, "eth0", MAC, 9000)
    add_link(namespace, "net1", other_mac, 1500)
    for words in (
        "link set lo up",
        "address add 10.9.0.2/24 dev eth0",
        "address add fd00:9::2/64 dev eth0 nodad",
        "address add 10.8.0.2/32 dev net1",
        "route add default via 10.9.0.1",
        "-6 route add default via fd00:9::1 dev eth0",
        "route add 10.8.0.1 dev net1 scope link",
        "route add 10.7.0.0/16 via 10.8.0.1 dev net1 onlink src 10.8.0.2 mtu 1400",
        "neighbour add 10.8.0.1 lladdr 02:00:00:00:00:aa dev net1 nud permanent",
    ):
        ip(*inside, *words.split())
    network = PodNetwork(str(namespace), tmp_path)
    try:
        assert [tap.mac for tap in network.taps] == [MAC, other_mac]
        assert all(tap.namespace.samefile(namespace) for tap in network.taps)
        taps = [os.dup(tap.fd) for tap in network.taps]  # as QEMU has them
        first, second = network.connect()
        assert (first.name, first.mac, first.mtu) == ("eth0", MAC, 9000)
        assert first.addresses == ((4, "10.9.0.2", 24), (6, "fd00:9::2", 64))
        assert first.routes == (Route(4, "", "10.9.0.1"), Route(6, "", "fd00:9::1"))
        assert (second.name, second.mac, second.mtu, second.addresses) == ("net1", other_mac, 1500, ((4, "10.8.0.2", 32),))
        assert second.routes == (
            Route(4, "10.7.0.0/16", "10.8.0.1", source="10.8.0.2", flags=4, mtu=1400),
            Route(4, "10.8.0.1/32", scope=253),
        )
        assert second.neighbours == ((4, "10.8.0.1", "02:00:00:00:00:aa"),)
        assert "mtu 9000" in ip(*inside, "link", "show", "innkeeper0")
        for pair in (("eth0", "innkeeper0"), ("innkeeper0", "eth0"), ("net1", "innkeeper1")):
            argv = ["tc", *inside, "filter", "show", "dev", pair[0], "ingress"]
            assert f"Egress Redirect to device {pair[1]}" in subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert network.forward is not None
        for tap in taps:
            os.close(tap)
        assert "innkeeper" not in ip(*inside, "link", "show")
    finally:
        network.close()


def test_a_namespace_without_an_interface(namespace: Path, tmp_path: Path) -> None:
    network = PodNetwork(str(namespace), tmp_path)
    assert network.taps == ()
    assert network.connect() == ()
    network.close()


def test_a_namespace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match="No such file or directory"):
        PodNetwork(str(tmp_path / "none"), tmp_path)
