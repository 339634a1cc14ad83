"""The host's clock as KVM shows it: found by its name, and followed when the guest's is off. The clocks are the system-call seam."""

import os
import time
from pathlib import Path

import pytest

from agent import loop, ptp_clock


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Clock id -> its time, in nanoseconds; they stand still."""
    times = {time.CLOCK_REALTIME: 1_000_000_000_000}
    monkeypatch.setattr(time, "time_ns", lambda: times[time.CLOCK_REALTIME])
    monkeypatch.setattr(time, "clock_gettime_ns", times.__getitem__)
    monkeypatch.setattr(time, "clock_settime_ns", times.__setitem__)
    return times


def test_it_is_found_by_its_name(tmp_path: Path) -> None:
    assert ptp_clock.find(str(tmp_path / "none")) is None
    for number, name in enumerate(("mlx5_ptp", ptp_clock.NAME)):
        (tmp_path / f"ptp{number}").mkdir()
        (tmp_path / f"ptp{number}" / "clock_name").write_text(f"{name}\n")
    assert ptp_clock.find(str(tmp_path)) == "/dev/ptp1"
    (tmp_path / "ptp1" / "clock_name").write_text("other\n")
    assert ptp_clock.find(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("off", "set_"), [(0, False), (400_000_000, False), (-400_000_000, False), (30_000_000_000, True), (-(2**40), True)]
)
def test_a_clock_that_is_off_is_set(clocks: dict[int, int], off: int, set_: bool) -> None:
    clocks[ptp_clock.clock_of(7)] = clocks[time.CLOCK_REALTIME] + off
    assert ptp_clock.correct(ptp_clock.clock_of(7)) is set_
    assert clocks[time.CLOCK_REALTIME] == 1_000_000_000_000 + (off if set_ else 0)


def test_the_kernel_takes_the_clock_of_a_descriptor() -> None:
    """A file that is no clock is refused as such: the number has the form that clock_gettime(2) wants."""
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=r"Invalid argument|Operation not supported"):
            time.clock_gettime_ns(ptp_clock.clock_of(fd))
    finally:
        os.close(fd)


def test_it_is_looked_at_again_and_again(clocks: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptp_clock, "INTERVAL", 0.001)
    fd = os.open(os.devnull, os.O_RDONLY)
    clock = ptp_clock.clock_of(fd)
    clocks[clock] = clocks[time.CLOCK_REALTIME]

    async def main() -> None:
        task = loop.spawn(ptp_clock._keep(fd), name="clock")
        for off in (5_000_000_000, -9_000_000_000):
            clocks[clock] += off
            with loop.timeout(30):
                while clocks[time.CLOCK_REALTIME] != clocks[clock]:
                    await loop.sleep(0)
        del clocks[clock]
        monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: os.read(-1, 1))
        with loop.timeout(30):
            await task.wait()

    loop.run(main())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
