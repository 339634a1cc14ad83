"""The start of the gateway's process, when it fails: nothing of it stays."""

import errno
import os

import pytest

from agent import loop
from agent.linux.reaper import reaper
from agent.service import gateway_process
from tests.descriptors import open_descriptors
from tests.needs import needs

pytestmark = needs("module:prctl")


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> frozenset[str]:
    """The descriptors that are open before a program that never listens is the gateway."""
    monkeypatch.setattr(gateway_process, "_program", lambda: (["/bin/sh", "-c", "exec sleep 1000"], dict(os.environ)))
    return open_descriptors()


def test_a_gateway_without_a_pidfd_is_ended(descriptors: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could wait for its end, or find it again."""
    started: list[int] = []

    def pidfd_open(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    with pytest.raises(OSError, match="Too many open files"):
        loop.run(gateway_process.start([]))
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert open_descriptors() == descriptors
    assert len(reaper) == 0


def test_a_start_that_is_given_up_ends_the_gateway(descriptors: frozenset[str]) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), loop.timeout(0.05):
            await gateway_process.start([])

    loop.run(main())
    assert open_descriptors() == descriptors
    assert len(reaper) == 0
