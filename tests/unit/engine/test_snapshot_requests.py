"""What the owner of a container does for a snapshot, step by step, with stand-ins for the VM and the agent."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from innkeeper.engine import clock, control_handlers, records, snapshot_hooks
from innkeeper.errors import InnkeeperError
from innkeeper.vm import snapshot


@pytest.fixture
def steps() -> list[str]:
    """What was done, in order."""
    return []


@pytest.fixture
def session(tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A running container."""
    agent = SimpleNamespace(pause_container=lambda _: steps.append("freeze"), resume_container=lambda _: steps.append("thaw"))
    monkeypatch.setattr(snapshot, "prepare", lambda vm: vm)
    monkeypatch.setattr(snapshot, "save", lambda vm, folder: steps.append("save"))
    monkeypatch.setattr(snapshot, "document", lambda vm: {"key": "key"})
    monkeypatch.setattr(clock, "correct", lambda agent: steps.append("clock"))
    (tmp_path / records.SPEC).write_text("{}")
    facts = {"status": records.RUNNING, "paused": False, "debug_guest": False}
    return SimpleNamespace(facts=facts, name="web", folder=tmp_path, guest_id="web", vm=None, agent=agent)


@pytest.fixture
def hooks(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that has the hook of this name fail."""
    failing: list[str] = []

    def run(agent: object, container_id: str, spec: object, name: str) -> None:
        steps.append(name)
        if name in failing:
            raise InnkeeperError(f"hook {name}: it ended with status 1")

    monkeypatch.setattr(snapshot_hooks, "run", run)
    return failing.append


def take(session: Any) -> dict[str, Any]:
    into = session.folder / "into"
    into.mkdir(exist_ok=True)
    return control_handlers.handle(session, {"command": "snapshot", "into": str(into)})


def test_the_container_is_frozen_first_and_thawed_last(session: Any, steps: list[str], hooks: object) -> None:
    assert take(session)["warning"] is None
    assert steps == ["before-snapshot", "freeze", "save", "clock", "thaw", "after-snapshot"]
    assert json.loads((session.folder / "into" / control_handlers.DOCUMENT).read_text())["container"] == "web"


def test_a_paused_one_has_no_hooks_and_stays_paused(session: Any, steps: list[str], hooks: object) -> None:
    session.facts["paused"] = True
    take(session)
    assert steps == ["save", "clock"]


def test_a_failure_before_refuses(session: Any, steps: list[str], hooks: Callable[[str], None]) -> None:
    hooks("before-snapshot")
    with pytest.raises(InnkeeperError, match="hook before-snapshot: it ended with status 1"):
        take(session)
    assert steps == ["before-snapshot"]
    assert list((session.folder / "into").iterdir()) == []


def test_a_failure_after_is_a_warning_of_a_snapshot_that_is_made(session: Any, steps: list[str], hooks: Callable[[str], None]) -> None:
    hooks("after-snapshot")
    assert take(session)["warning"] == "hook after-snapshot: it ended with status 1"
    assert steps[-2:] == ["thaw", "after-snapshot"]
    assert (session.folder / "into" / control_handlers.DOCUMENT).exists()


def test_a_debug_guest_is_refused_before_anything_is_done(session: Any, steps: list[str], hooks: object) -> None:
    session.facts["debug_guest"] = True
    with pytest.raises(InnkeeperError, match="a debug guest cannot be saved") as refused:
        take(session)
    assert refused.value.hint == "run it without --debug-guest"
    assert steps == []


def test_a_vm_that_cannot_be_saved_is_refused_before_anything_is_done(
    session: Any, steps: list[str], hooks: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(vm: object) -> None:
        raise InnkeeperError("a VM of the pool cannot be saved")

    monkeypatch.setattr(snapshot, "prepare", prepare)
    with pytest.raises(InnkeeperError, match="a VM of the pool cannot be saved"):
        take(session)
    assert steps == []
