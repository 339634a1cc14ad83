"""How long it takes until all free pages are reported that were used, and which device that needs."""

import os
from pathlib import Path

import pytest

from agent.errors import StepFailed
from agent.service import wipe

LISTS = """Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2      3
Node    0, zone      DMA, type    Unmovable      0      0      1      1
Node    0, zone    DMA32, type      Movable {counts}
Node    0, zone    DMA32, type      Isolate      0      0      0      0

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate
Node 0, zone      DMA            1            7            0            0            0
"""


@pytest.mark.parametrize(
    ("counts", "used_blocks", "passes"),
    [
        ("0 0 0 1", 40, 1),
        ("32 0 0 0", 40, 1),
        ("33 0 0 0", 40, 2),
        ("512 0 0 0", 40, 16),
        ("513 0 0 0", 40, 9),
        ("0 0 0 437", 32, 1),
        ("0 0 0 437", 33, 2),
        ("0 0 0 437", 500, 14),
        ("0 0 200 4000", 64, 2),
        ("100 0 200 4000", 64, 4),
        ("0 0 0 0", 40, 1),
    ],
)
def test_passes(counts: str, used_blocks: int, passes: int) -> None:
    """A pass reports 32 blocks of each size, or a sixteenth part where that is more (page_reporting_cycle).

    The used ones of the two largest sizes come first.
    """
    assert wipe._passes(LISTS.format(counts=counts), used_blocks) == passes


@pytest.mark.parametrize(("memory_mib", "processors", "kept"), [(2048, 2, 16), (512, 2, 16), (256, 2, 8), (512, 16, 2), (256, 64, 1)])
def test_what_is_held_is_a_small_part_of_the_memory(memory_mib: int, processors: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": memory_mib << 8, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert wipe._kept_mib(processors) == kept


def test_without_the_device_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wipe, "DRIVER", str(tmp_path))
    monkeypatch.setattr(wipe, "DEVICE_SECONDS", 0.2)
    with pytest.raises(StepFailed, match="has not found the device"):
        wipe._report_pages(1)


def test_the_device_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "virtio7").mkdir()
    monkeypatch.setattr(wipe, "DRIVER", str(tmp_path))
    wipe._wait_for_device()
