"""Links, addresses, routes and neighbours in a network namespace of their own; pyroute2's IPRoute says what the kernel then has."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.device.watch import DeviceWatch
from agent.errors import Refused
from agent.linux.loopback import loopback_up
from agent.network.interface import list_interfaces, update_interface
from agent.network.link import LinkMissing
from agent.network.neighbour import add_arp_neighbors
from agent.network.route import list_routes, update_routes
from agent.service.clone import _set_hardware_address
from innkeeper.wire.pb.types_pb2 import ARPNeighbor, Interface, IPAddress, Route
from tests.forked import CLONE_NEWNET, forked
from tests.needs import needs

pytestmark = [pytest.mark.root, needs("module:pyroute2")]

MAC = "02:00:00:00:00:0a"


@contextmanager
def oracle() -> Iterator[Any]:
    from pyroute2.iproute import IPRoute

    with IPRoute() as route:
        yield route


def in_own_network(body: Callable[[], object]) -> None:
    """With a link d0 (MAC) and a link d1, both down, and their other ends."""

    def main() -> None:
        with oracle() as route:
            route.link("add", ifname="d0", kind="veth", peer="p0", address=MAC)
            route.link("add", ifname="d1", kind="veth", peer="p1")
        body()

    forked(main, unshare=CLONE_NEWNET)


def update(interface: Interface) -> Interface:
    return loop.run(update_interface(interface, DeviceWatch(hotplug_timeout=0.1)))


def link_of(name: str) -> Any:
    with oracle() as route:
        return route.link("get", ifname=name)[0]


IFA_F_NODAD, IFA_F_TENTATIVE = 0x02, 0x40


def addresses_of(name: str) -> set[str]:
    with oracle() as route:
        index = route.link_lookup(ifname=name)[0]
        return {f"{item.get_attr('IFA_ADDRESS')}/{item['prefixlen']}" for item in route.get_addr(index=index)}


def v4(text: str, mask: str = "24") -> IPAddress:
    return IPAddress(family="v4", address=text, mask=mask)


def v6(text: str, mask: str = "64") -> IPAddress:
    return IPAddress(family="v6", address=text, mask=mask)


def test_the_hardware_address_of_a_link_that_is_up_and_has_routes() -> None:
    """As ResumeClone changes it: address and routes stay."""

    def body() -> None:
        update(Interface(device="d0", name="d0", IPAddresses=[v4("10.7.0.2")], hwAddr=MAC))
        _set_hardware_address("d0", "52:54:00:Ab:00:01")
        assert link_of("d0").get_attr("IFLA_ADDRESS") == "52:54:00:ab:00:01"
        assert link_of("d0")["flags"] & 1
        assert "10.7.0.2/24" in addresses_of("d0")
        with pytest.raises(OSError, match="none9"):
            _set_hardware_address("none9", MAC)

    in_own_network(body)


def test_loopback_up() -> None:
    def body() -> None:
        loopback_up()
        assert link_of("lo")["flags"] & 1
        assert "127.0.0.1/8" in addresses_of("lo")

    in_own_network(body)


def test_interface_found_by_address_is_renamed_and_comes_up() -> None:
    def body() -> None:
        request = Interface(
            device="eth0", name="eth0", hwAddr=MAC.upper(), mtu=1400, IPAddresses=[v4("10.1.2.3"), v6("fd00::3")], type="veth"
        )
        assert update(request) == request
        link = link_of("eth0")
        assert link["flags"] & 1
        assert (link.get_attr("IFLA_MTU"), link.get_attr("IFLA_ADDRESS")) == (1400, MAC)
        assert {"10.1.2.3/24", "fd00::3/64"} <= addresses_of("eth0")
        with oracle() as route:
            (six,) = (item for item in route.get_addr(index=link["index"]) if item.get_attr("IFA_ADDRESS") == "fd00::3")
        assert six["flags"] & (IFA_F_NODAD | IFA_F_TENTATIVE) == IFA_F_NODAD  # usable at once

    in_own_network(body)


def test_interface_found_by_name_gets_the_address() -> None:
    def body() -> None:
        update(Interface(name="d1", hwAddr="02:00:00:00:00:0b", raw_flags=0x80))
        link = link_of("d1")
        assert link.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:0b"
        assert link["flags"] & 0x80
        update(Interface(name="d1"))
        assert not link_of("d1")["flags"] & 0x80

    in_own_network(body)


def test_names_are_exchanged() -> None:
    def body() -> None:
        with oracle() as route:
            other = route.link_lookup(ifname="d1")[0]
            route.link("set", index=other, state="up")
        update(Interface(name="d1", hwAddr=MAC))
        assert link_of("d1").get_attr("IFLA_ADDRESS") == MAC
        assert link_of("d0")["index"] == other
        assert link_of("d0")["flags"] & 1

    in_own_network(body)


def test_update_twice_keeps_what_is_there() -> None:
    def body() -> None:
        update(Interface(name="d0", IPAddresses=[v4("10.0.0.1")]))
        update(Interface(name="d0", IPAddresses=[v4("10.0.0.1"), v4("10.0.1.1", "16")]))
        assert {"10.0.0.1/24", "10.0.1.1/16"} <= addresses_of("d0")

    in_own_network(body)


@pytest.mark.parametrize("request_", [Interface(name="eth9"), Interface(name="eth9", devicePath="1e/1f")], ids=["name", "path"])
def test_absent_link(request_: Interface) -> None:
    def body() -> None:
        with pytest.raises(LinkMissing, match="Link not found"):
            update(request_)

    in_own_network(body)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Interface(name="a name"), "interface.name"),
        (Interface(name="sixteen-letters-"), "interface.name"),
        (Interface(name="d0", hwAddr="02:0"), "interface.hwAddr"),
        (Interface(name="d0", IPAddresses=[v4("10.0.0.300")]), "interface.IPAddresses[0].address"),
        (Interface(name="d0", IPAddresses=[v4("fd00::1")]), "interface.IPAddresses[0].family"),
        (Interface(name="d0", IPAddresses=[v4("10.0.0.1", "33")]), "interface.IPAddresses[0].mask"),
        (Interface(name="d0", raw_flags=0x100), "interface.raw_flags"),
        (Interface(name="d0", devicePath="zz"), "interface.devicePath"),
    ],
)
def test_refused_before_anything_is_changed(request_: Interface, field: str) -> None:
    def body() -> None:
        with oracle() as route:
            route.link("set", ifname="d0", state="up")
        with pytest.raises(Refused) as caught:
            update(request_)
        assert caught.value.field == field
        assert link_of("d0")["flags"] & 1

    in_own_network(body)


def test_a_link_that_was_up_is_up_after_a_failure() -> None:
    def body() -> None:
        with oracle() as route:
            route.link("set", ifname="d0", state="up")
        with pytest.raises(OSError, match="d0"):
            update(Interface(name="d0", mtu=1))
        assert link_of("d0")["flags"] & 1

    in_own_network(body)


def test_interfaces_are_listed_with_their_right_family() -> None:
    def body() -> None:
        update(Interface(name="d0", mtu=1300, IPAddresses=[v4("10.0.0.1"), v6("fd00::1")]))
        found = {item.name: item for item in list_interfaces()}
        assert set(found) >= {"lo", "d0", "d1"}
        shown = found["d0"]
        assert (shown.hwAddr, shown.mtu, shown.type) == (MAC, 1300, "veth")
        listed = [(item.family, item.address, item.mask) for item in shown.IPAddresses]
        assert (0, "10.0.0.1", "24") in listed and (1, "fd00::1", "64") in listed

    in_own_network(body)


def test_routes() -> None:
    def body() -> None:
        update(Interface(name="d0", IPAddresses=[v4("10.0.0.2"), v6("fd00::2")]))
        wanted = [
            Route(gateway="10.0.0.1", device="d0"),
            Route(dest="10.9.0.0/16", gateway="10.8.0.1", device="d0", mtu=1234),
            Route(dest="10.8.0.0/24", device="d0", scope=253, source="10.0.0.2"),
            Route(dest="10.7.7.7", gateway="172.16.0.1", device="d0", flags=4),
            Route(gateway="fd00::1", device="d0", family="v6"),
            Route(dest="fd01::/64", device="d0", family="v6"),
        ]
        answer = update_routes(wanted)
        with oracle() as route:
            kernel = {
                (item.get_attr("RTA_DST"), item["dst_len"]): item
                for family in (socket.AF_INET, socket.AF_INET6)
                for item in route.get_routes(family=family, table=254)
            }
            index = route.link_lookup(ifname="d0")[0]
        assert kernel["10.9.0.0", 16].get_attr("RTA_METRICS").get_attr("RTAX_MTU") == 1234
        assert kernel["10.8.0.0", 24].get_attr("RTA_PREFSRC") == "10.0.0.2"
        assert kernel["10.8.0.0", 24]["scope"] == 253
        assert kernel["10.7.7.7", 32].get_attr("RTA_GATEWAY") == "172.16.0.1"
        assert kernel["fd01::", 64].get_attr("RTA_OIF") == index
        assert all(item["proto"] == 3 for (dest, _), item in kernel.items() if dest in ("10.9.0.0", "fd01::"))
        shown = {(int(item.family), item.dest): item for item in answer}
        assert shown[0, ""].gateway == "10.0.0.1"
        assert shown[1, ""].gateway == "fd00::1"
        assert shown[0, "10.9.0.0/16"].mtu == 1234
        assert shown[0, "10.7.7.7/32"].flags == 4
        assert all(item.device == "d0" for item in answer)

    in_own_network(body)


def test_routes_replace_and_repeat() -> None:
    def body() -> None:
        update(Interface(name="d0", IPAddresses=[v4("10.0.0.2")]))
        for gateway in ("10.0.0.1", "10.0.0.1", "10.0.0.9"):
            update_routes([Route(gateway=gateway, device="d0")])
        assert [item.gateway for item in list_routes() if not item.dest] == ["10.0.0.9"]

    in_own_network(body)


@pytest.mark.parametrize(
    ("route", "error"),
    [
        (Route(dest="10.0.0.0/24", device="eth9"), "Link not found"),
        (Route(dest="10.0.0.0/99", device="d0"), r"routes\[0\].dest"),
        (Route(dest="fd00::/64", device="d0"), r"routes\[0\].dest"),
        (Route(gateway="nowhere", device="d0"), r"routes\[0\].gateway"),
        (Route(dest="10.0.0.0/24", source="::1", device="d0"), r"routes\[0\].source"),
        (Route(dest="10.0.0.0/24", device="d0", scope=256), r"routes\[0\].scope"),
    ],
)
def test_refused_routes(route: Route, error: str) -> None:
    def body() -> None:
        with pytest.raises((LinkMissing, Refused), match=error):
            update_routes([route])

    in_own_network(body)


def test_unreachable_gateway_names_the_route() -> None:
    def body() -> None:
        update(Interface(name="d0", IPAddresses=[v4("10.0.0.2")]))
        with pytest.raises(OSError, match=r"unreachable.*route 10\.5\.0\.0/16"):
            update_routes([Route(dest="10.5.0.0/16", gateway="192.168.9.9", device="d0")])

    in_own_network(body)


def test_neighbours() -> None:
    def body() -> None:
        update(Interface(name="d0", IPAddresses=[v4("10.0.0.2"), v6("fd00::2")]))
        add_arp_neighbors(
            [
                ARPNeighbor(toIPAddress=v4("10.0.0.7"), device="d0", lladdr="AA:bb:cc:00:00:01"),
                ARPNeighbor(toIPAddress=v6("fd00::7"), device="d0", lladdr="aa:bb:cc:00:00:02", state=0x40, flags=0x80),
            ]
        )
        with oracle() as route:
            kernel = {
                item.get_attr("NDA_DST"): (item.get_attr("NDA_LLADDR"), item["state"], item["flags"])
                for family in (socket.AF_INET, socket.AF_INET6)
                for item in route.get_neighbours(family=family)
            }
        assert kernel["10.0.0.7"] == ("aa:bb:cc:00:00:01", 0x80, 0)
        assert kernel["fd00::7"] == ("aa:bb:cc:00:00:02", 0x40, 0x80)

    in_own_network(body)


def test_ipv6_addresses_are_left_out_where_it_is_off() -> None:
    def body() -> None:
        for scope in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
        update(Interface(name="d0", IPAddresses=[v4("10.0.0.2"), v6("fd00::2")]))
        assert addresses_of("d0") == {"10.0.0.2/24"}

    in_own_network(body)


def test_a_table_of_many_links_is_read_whole() -> None:
    def body() -> None:
        with oracle() as route:
            for number in range(100):
                route.link("add", ifname=f"many{number}a", kind="veth", peer=f"many{number}b")
        assert len([item for item in list_interfaces() if item.name.startswith("many")]) == 200

    in_own_network(body)
