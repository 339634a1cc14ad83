"""What is told of a container's end, in docker's words: `State` of inspect, the columns of ps."""

import json
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from innkeeper.cli import ps
from innkeeper.engine import records
from innkeeper.errors import InnkeeperError
from innkeeper.vm import registry

NEVER = "0001-01-01T00:00:00Z"
BEGAN, ENDED = "2001-09-09T01:46:40.000000Z", "2001-09-09T01:47:40.000000Z"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))


def container(**facts: Any) -> records.Container:
    """A record as its owner has left it."""
    entry = registry.create("web")
    noted = {"image": "busybox", "digest": "sha256:1", "command": ["sleep", "1"], **facts}
    entry.update(keep=True, container=noted)
    entry.release()
    return records.lookup("web")


EXITED: dict[str, Any] = {"status": "exited", "started": 1e9, "finished": 1e9 + 60}


@pytest.mark.parametrize(
    ("facts", "state", "column"),
    [
        ({**EXITED, "exit_status": 0}, {"Status": "exited", "ExitCode": 0, "FinishedAt": ENDED}, "Exited (0) "),
        ({**EXITED, "exit_status": 3}, {"Status": "exited", "ExitCode": 3, "OOMKilled": False, "Error": ""}, "Exited (3) "),
        ({**EXITED, "exit_status": 137, "oom_killed": True}, {"ExitCode": 137, "OOMKilled": True}, "Exited (137) "),
        (
            {"status": "failed", "error": "find program: x", "exit_status": 127, "finished": 1e9},
            {"Status": "created", "ExitCode": 127, "Error": "find program: x", "StartedAt": NEVER},
            "Created (failed: 127)",
        ),
        (
            {"status": "failed", "error": "panicked", "exit_status": 255, "started": 1e9, "finished": 1e9 + 60, "oom_killed": True},
            {"Status": "exited", "ExitCode": 255, "Error": "panicked", "OOMKilled": True, "StartedAt": BEGAN, "FinishedAt": ENDED},
            "Exited (255) ",
        ),
        (
            {"status": "running", "started": 1e9},
            {"Status": "exited", "Running": False, "Pid": 0, "ExitCode": 255, "Error": "its owner was killed", "FinishedAt": NEVER},
            "Exited (255)",
        ),
    ],
    ids=["done", "status", "memory", "never ran", "guest gone", "owner killed"],
)
def test_state_of_an_end(facts: dict[str, Any], state: dict[str, Any], column: str) -> None:
    seen = container(**facts)
    told = seen.state()
    assert {key: told[key] for key in state} == state
    assert told["Running"] is told["Paused"] is told["Restarting"] is told["Dead"] is False
    assert ps._status(seen).startswith(column)
    assert ("out of memory" in ps._status(seen)) is told["OOMKilled"]


def test_names_are_dockers_beside_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    from innkeeper.cli import inspect_

    seen = container(**EXITED, exit_status=0)
    inspect_.inspect(["web"])
    (known,) = json.loads(capsys.readouterr().out)
    assert (known["Id"], known["Name"], known["Path"], known["Args"], known["Image"]) == (seen.id, "/web", "sleep", ["1"], "sha256:1")
    assert (known["id"], known["name"], known["status"], known["exit_status"]) == (seen.id, "web", "exited", 0)
    assert known["State"] == seen.state()
    ps.ps("", everything=True, json=True)
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["State"], listed["Status"][:10], listed["status"]) == ("exited", "Exited (0)", "exited")


def test_a_running_one() -> None:
    entry = registry.create("web")
    entry.update(pid=77, container={"image": "i", "digest": "d", "status": "running", "started": 1e9})
    state = records.lookup("web").state()
    entry.release()
    assert (state["Status"], state["Running"], state["Pid"], state["FinishedAt"]) == ("running", True, 77, NEVER)


def test_waiting_for_the_owner() -> None:
    entry = registry.create("web")
    entry.update(container={"image": "i", "digest": "d", "status": "running"})
    seen = records.lookup("web")
    assert seen.still_alive() and not seen.wait_ended(0.01)
    Timer(0.1, entry.release).start()
    assert seen.wait_ended(float("inf"))
    assert not seen.still_alive() and seen.wait_ended(0)


def test_several_are_looked_up_at_once() -> None:
    entries = [registry.create(name) for name in ("web", "db")]
    for entry in entries:
        entry.update(container={"image": "i", "digest": "d"})
    assert [one.id for one in records.lookup_all([entries[1].id[:8], "web"])] == [entries[1].id, entries[0].id]
    with pytest.raises(InnkeeperError, match="no such container: other"):
        records.lookup_all(["web", "other"])
    for entry in entries:
        entry.release()
