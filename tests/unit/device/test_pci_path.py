"""Kata's PCI paths against a sysfs made of files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.device import pci
from agent.device.pci import PciPath, Slot
from agent.errors import Refused


@pytest.mark.parametrize(
    ("text", "root_complex", "slots"),
    [
        ("02", 0, [(2, 0)]),
        ("02/03", 0, [(2, 0), (3, 0)]),
        ("2/1f", 0, [(2, 0), (0x1F, 0)]),
        ("02.1/00.7", 0, [(2, 1), (0, 7)]),
        ("02/00/01", 0, [(2, 0), (0, 0), (1, 0)]),
        ("20/00/01", 0x20, [(0, 0), (1, 0)]),
        ("1f/00/01", 0, [(0x1F, 0), (0, 0), (1, 0)]),
    ],
)
def test_parse(text: str, root_complex: int, slots: list[tuple[int, int]]) -> None:
    assert pci.parse(text) == PciPath(root_complex, tuple(Slot(*slot) for slot in slots))


@pytest.mark.parametrize(
    "text", ["", "/", "02/", "/02", "20", "20/01", "02//03", "zz", "02.8", "02.", "02.11", "-1", "0x2", "002", " 2", "02/..", "٣"]
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(Refused, match="is no PCI path"):
        pci.parse(text)


@given(st.lists(st.tuples(st.integers(0, 0x1F), st.integers(0, 7)), min_size=1, max_size=6))
def test_round_trip(slots: list[tuple[int, int]]) -> None:
    path = PciPath(0, tuple(Slot(*slot) for slot in slots))
    assert pci.parse(str(path)) == path


def _sysfs(tmp_path: Path, *directories: str) -> str:
    for directory in directories:
        (tmp_path / "devices" / directory).mkdir(parents=True)
    return str(tmp_path)


def test_resolve_through_bridges(tmp_path: Path) -> None:
    bridge = "pci0000:00/0000:00:02.0"
    inner = f"{bridge}/0000:01:00.0"
    root = _sysfs(tmp_path, f"{bridge}/pci_bus/0000:01", f"{inner}/pci_bus/0000:07", f"{inner}/0000:07:01.0/virtio3")
    assert pci.resolve(pci.parse("02/00/01"), root) == f"/devices/{inner}/0000:07:01.0"
    assert pci.resolve(pci.parse("02/00/02"), root) is None
    assert pci.resolve(pci.parse("03/00"), root) is None


def test_resolve_where_a_bridge_does_not_name_its_bus(tmp_path: Path) -> None:
    root = _sysfs(tmp_path, "pci0000:00/0000:00:02.0/0000:05:03.0", "pci0000:00/0000:00:02.0/power")
    assert pci.resolve(pci.parse("02/03"), root) == "/devices/pci0000:00/0000:00:02.0/0000:05:03.0"


def test_resolve_on_a_second_root(tmp_path: Path) -> None:
    root = _sysfs(tmp_path, "pci0000:20/0000:20:00.0/pci_bus/0000:21", "pci0000:20/0000:20:00.0/0000:21:01.0")
    assert pci.resolve(pci.parse("20/00/01"), root) == "/devices/pci0000:20/0000:20:00.0/0000:21:01.0"
