"""A thousand rounds of exec, close and cancel at random leave an agent as it was: descriptors, mounts, processes, memory."""

import os
import time
from pathlib import Path

import pytest

from tests.churn import GROWTH, ROUNDS, WARM, churn
from tests.eventually import eventually
from tests.needs import needs
from tests.root.agent_helpers import NativeAgent, native_agent, shim_document

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]


def gauge(guest: NativeAgent) -> tuple[int, str, int, int]:
    """(descriptors, mounts, children, processes that are known) of the agent."""
    pid = guest.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return len(os.listdir(f"/proc/{pid}/fd")), guest.mounts, len(children), len(guest.agent.list_processes("box"))


def resident(guest: NativeAgent) -> int:
    return int(Path(f"/proc/{guest.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_rounds_leave_nothing(container_root: Path, tmp_path: Path) -> None:
    with native_agent(tmp_path) as guest:
        guest.sandbox()
        guest.start("box", shim_document(container_root, "sleep", "100000"))
        churn(guest.address, WARM, 1)
        before, memory = _settled(guest, None), resident(guest)
        churn(guest.address, ROUNDS, 2)
        assert _settled(guest, before) == before
        eventually(lambda: resident(guest) - memory < GROWTH, lambda: f"{memory} bytes became {resident(guest)}")
        assert "Traceback" not in guest.log
        guest.agent.remove_container("box")


def _settled(guest: NativeAgent, wanted: tuple[int, str, int, int] | None) -> tuple[int, str, int, int]:
    """The gauge when it is what is wanted, or has not changed for a while."""
    deadline = time.monotonic() + 20
    last, since = gauge(guest), time.monotonic()
    while time.monotonic() < deadline:
        now = gauge(guest)
        if now == wanted or (wanted is None and now == last and time.monotonic() - since > 1):
            return now
        if now != last:
            last, since = now, time.monotonic()
    return last
