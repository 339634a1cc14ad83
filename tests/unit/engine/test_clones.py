"""A clone is ended, and the VM boots, unless all of its identity is its own. What becomes of its template."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from innkeeper import progress
from innkeeper.client import Agent, RpcError
from innkeeper.engine import clones, templates
from innkeeper.engine.resolve import ResolvedRun, RunRequest
from innkeeper.errors import InnkeeperError
from innkeeper.vm import CloneableVm, VmConfig, template
from innkeeper.vm.registry import Entry
from innkeeper.wire import status
from innkeeper.wire.pb.guest_pb2 import ResumeCloneRequest, ResumeCloneResponse

MS = 1_000_000
Answer = Callable[[ResumeCloneResponse], None]
"""Changes the right answer, or raises in its place."""


class Vm:
    """Stands in for a VM: `helper` is one of its processes, and is killed at its start if so asked."""

    def __init__(self, config: VmConfig | None, helper: "subprocess.Popen[bytes]", *, killed: bool = False, starts: bool = True) -> None:
        self.config = config
        self.processes = [helper]
        self.template: object = None
        self.ended = False
        self._killed = killed
        self._starts = starts

    def template_key(self) -> str:
        return "key"

    def start(self) -> None:
        if self._killed:
            self.processes[0].kill()
        if not self._starts:
            raise InnkeeperError("it did not start")

    def wait_channel(self, timeout: float) -> None:
        pass

    def address(self, port: int) -> str:
        return "unix:///nowhere"

    def announce(self) -> None:
        pass

    def end(self) -> None:
        self.ended, self.processes = True, []


class Guest:
    """Answers `ResumeClone`, with what `answer` makes of the right one."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def resume_clone(self, request: ResumeCloneRequest) -> ResumeCloneResponse:
        response = ResumeCloneResponse(generation=request.generation, realtime_ns=time.time_ns())
        self._answer(response)
        return response


@pytest.fixture
def helper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the templates that were removed. There is one of any key."""
    keys: list[str] = []
    found: Any = lambda key: contextlib.nullcontext(object())  # noqa: E731
    monkeypatch.setattr(template, "found", found)
    monkeypatch.setattr(template, "remove", keys.append)
    return keys


@pytest.mark.parametrize("killed", [True, False])
def test_a_template_is_removed_unless_somebody_killed_the_vm(helper: "subprocess.Popen[bytes]", removed: list[str], killed: bool) -> None:
    vm = Vm(None, helper, killed=killed, starts=False)
    with pytest.raises(InnkeeperError, match="it did not start"):
        clones.load(cast(CloneableVm, vm), "key")
    assert vm.ended
    assert removed == ([] if killed else ["key"])


def right(response: ResumeCloneResponse) -> None:
    pass


def other_generation(response: ResumeCloneResponse) -> None:
    response.generation -= 1


def early(response: ResumeCloneResponse) -> None:
    response.realtime_ns -= 60 * MS


def late(response: ResumeCloneResponse) -> None:
    response.realtime_ns += 60 * MS


def refused(response: ResumeCloneResponse) -> None:
    raise RpcError(status.INTERNAL, "the kernel takes no entropy")


def lost(response: ResumeCloneResponse) -> None:
    raise RpcError(status.UNAVAILABLE, "the connection ended", lost=True)


def broken(response: ResumeCloneResponse) -> None:
    raise ConnectionResetError("the connection was reset")


WRONG: dict[Answer, str] = {
    other_generation: "generation of the clone",
    early: "the clock of the clone is off by -0.06",
    late: "the clock of the clone is off by 0.06",
    refused: "the kernel takes no entropy",
    lost: "the connection ended",
    broken: "the connection was reset",
}
"""What a guest may answer, and the words of it that a user sees."""


@pytest.fixture
def start(
    helper: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Answer], tuple[Any, Vm, SimpleNamespace]]:
    """A function that has a run started from a template. It returns what came of it, the VM, and the connection."""
    for name in ("kernel", "root"):
        (tmp_path / name).write_text(name)
    config = VmConfig(kernel=tmp_path / "kernel", root=tmp_path / "root", memory_mib=512, cloneable=True, gives_memory_back=False)

    def start(answer: Answer) -> tuple[Any, Vm, SimpleNamespace]:
        vm, client = Vm(config, helper), SimpleNamespace(closed=False)
        client.close = lambda: setattr(client, "closed", True)
        monkeypatch.setattr(templates, "CloneableVm", lambda *_: vm)
        monkeypatch.setattr(templates, "_claim", lambda *_, **__: None)
        monkeypatch.setattr(clones, "connect", lambda *_, **__: client)
        monkeypatch.setattr(clones, "Agent", lambda *_: Guest(answer))
        resolved = cast(ResolvedRun, SimpleNamespace(request=RunRequest(reference="image", start="auto"), host=None))
        return templates.start(resolved, config, cast(Entry, None)), vm, client

    return start


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(progress, "warn", said.append)
    return said


@pytest.mark.parametrize("answer", WRONG, ids=lambda answer: answer.__name__)
def test_a_half_made_clone_is_ended_and_the_vm_boots(answer: Answer, start: Any, removed: list[str], warnings: list[str]) -> None:
    started, vm, client = start(answer)
    assert started is None, "it boots"
    assert vm.ended and client.closed
    assert removed == ["key"]
    (said,) = warnings
    assert said.startswith("the guest's template cannot be used, booting instead: ")
    assert WRONG[answer] in said


@pytest.mark.parametrize("answer", [lost, broken])
def test_of_a_clone_that_somebody_killed_the_template_stays(
    answer: Answer, start: Any, removed: list[str], warnings: list[str], helper: "subprocess.Popen[bytes]"
) -> None:
    def killed(response: ResumeCloneResponse) -> None:
        helper.kill()
        answer(response)

    started, vm, client = start(killed)
    assert started is None and vm.ended and client.closed
    assert removed == []
    assert len(warnings) == 1


def test_a_clone_that_is_one_of_its_own_is_used(start: Any, removed: list[str], warnings: list[str]) -> None:
    started, vm, client = start(right)
    assert started == (vm, client)
    assert not vm.ended and not client.closed
    assert removed == [] == warnings


def test_a_damaged_template_is_said_to_be_so_and_removed_once(
    start: Any, warnings: list[str], removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`template.found` has removed it: what has its key by now is another one."""

    def found(key: str) -> None:
        raise InnkeeperError("it is damaged")

    monkeypatch.setattr(template, "found", found)
    started, vm, _ = start(right)
    assert started is None and vm.ended
    assert removed == []
    assert warnings == ["the guest's template cannot be used, booting instead: it is damaged"]


class SlowGuest:
    """A guest whose requests are on their way for milliseconds: each takes the next pair (there, back) of `delays`, then (1, 1).

    Time stands still otherwise.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, delays: list[tuple[int, int]]) -> None:
        self.now = 1_000_000 * MS
        self.off = -5_000 * MS
        self.sets = 0
        self.refusal: RpcError | None = None
        self._delays = delays
        monkeypatch.setattr(time, "time_ns", lambda: self.now)

    def _call(self, work: Callable[[], int]) -> int:
        there, back = self._delays.pop(0) if self._delays else (1, 1)
        self.now += there * MS
        answer = work()
        self.now += back * MS
        return answer

    def resume_clone(self, request: ResumeCloneRequest) -> ResumeCloneResponse:
        def work() -> int:
            self.off = request.realtime_ns - self.now
            return self.now + self.off

        return ResumeCloneResponse(realtime_ns=self._call(work), generation=request.generation)

    def get_clock(self) -> int:
        return self._call(lambda: self.now + self.off)

    def set_guest_date_time(self, seconds: int, microseconds: int) -> None:
        if self.refusal is not None:
            raise self.refusal

        def work() -> int:
            self.off = seconds * 1000 * MS + microseconds * 1000 - self.now
            self.sets += 1
            return 0

        self._call(work)


def identify(guest: SlowGuest) -> None:
    vm = SimpleNamespace(config=SimpleNamespace(network=False))
    clones.identify(cast(CloneableVm, vm), cast(Agent, guest))


@pytest.mark.parametrize(
    ("delays", "sets"),
    [
        pytest.param([(20, 20)], 0, id="fast enough to be right at once"),
        pytest.param([(300, 10)], 1, id="the first request is slow"),
        pytest.param([(10, 300)], 0, id="only its answer is slow"),
        pytest.param([(300, 10), (40, 40), (40, 40), (30, 30)], 1, id="all are slow"),
        pytest.param([(300, 10), (5, 5), (200, 5), (5, 5)], 2, id="setting it is slow once"),
        pytest.param([(300, 10), (100, 100), (100, 100), (100, 100), (90, 90)], 1, id="nothing is proven for a while"),
        pytest.param([(300, 10), *[(5, 5), (200, 5)] * 9, (5, 5), (20, 20)], 10, id="setting it is slow nine times"),
    ],
)
def test_the_clock_is_set_until_it_is_right(monkeypatch: pytest.MonkeyPatch, delays: list[tuple[int, int]], sets: int) -> None:
    """The time for which a request is on its way is not what the clock is off by afterwards."""
    guest = SlowGuest(monkeypatch, delays)
    identify(guest)
    assert abs(guest.off) <= clones.CLOCK_TOLERANCE_NS
    assert guest.sets == sets


def test_a_clock_that_cannot_be_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = SlowGuest(monkeypatch, [(300, 10)])
    monkeypatch.setattr(guest, "set_guest_date_time", lambda seconds, microseconds: None)
    with pytest.raises(InnkeeperError, match=r"the clock of the clone is off by -0\.300 s"):
        identify(guest)


def test_a_policy_may_forbid_to_set_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = SlowGuest(monkeypatch, [(300, 10)])
    guest.refusal = RpcError(status.PERMISSION_DENIED, "the policy forbids it")
    identify(guest)
    guest.refusal = RpcError(status.UNAVAILABLE, "gone", lost=True)
    guest._delays.append((300, 10))
    with pytest.raises(RpcError, match="gone"):
        identify(guest)
