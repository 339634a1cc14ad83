"""How long it takes until all free pages are reported, and which device that needs."""

from pathlib import Path

import pytest

from agent.errors import StepFailed
from agent.loop import run
from agent.service import wipe

ZONE = "Node 0, zone    DMA32 "


@pytest.mark.parametrize(
    ("counts", "passes"),
    [("0 0 1", 1), ("32 0 0", 1), ("33 0 0", 2), ("512 0 0", 16), ("513 0 0", 9), ("0 0 4000", 16), ("1 500 2", 16)],
)
def test_passes(counts: str, passes: int) -> None:
    """A pass reports 32 blocks of each size, or a sixteenth part where that is more (page_reporting_cycle)."""
    assert wipe._passes(f"{ZONE} {counts}\nNode 0, zone DMA 0 0 1\n") == passes


def test_without_the_device_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wipe, "DRIVER", str(tmp_path))
    monkeypatch.setattr(wipe, "DEVICE_SECONDS", 0.2)
    with pytest.raises(StepFailed, match="has not found the device"):
        run(wipe._report_pages())


def test_the_device_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "virtio7").mkdir()
    monkeypatch.setattr(wipe, "DRIVER", str(tmp_path))
    run(wipe._device())
