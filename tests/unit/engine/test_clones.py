"""What becomes of a template from which a VM did not start."""

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest

from innkeeper.engine import clones
from innkeeper.errors import InnkeeperError
from innkeeper.vm import CloneableVm, template


class Vm:
    """Stands in for a VM that does not start: `helper` is one of its processes."""

    def __init__(self, helper: "subprocess.Popen[bytes]", *, killed: bool) -> None:
        self.processes = [helper]
        self._killed = killed
        self.ended = False

    def start(self) -> None:
        if self._killed:
            self.processes[0].kill()
        raise InnkeeperError("it did not start")

    def end(self) -> None:
        self.ended, self.processes = True, []


@pytest.fixture
def helper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("killed", [True, False])
def test_it_is_removed_unless_somebody_killed_the_vm(
    helper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    removed: list[str] = []
    found: Any = lambda key: contextlib.nullcontext(object())  # noqa: E731
    monkeypatch.setattr(template, "found", found)
    monkeypatch.setattr(template, "remove", removed.append)
    vm = Vm(helper, killed=killed)
    with pytest.raises(InnkeeperError, match="it did not start"):
        clones.load(cast(CloneableVm, vm), "key")
    assert vm.ended
    assert removed == ([] if killed else ["key"])
