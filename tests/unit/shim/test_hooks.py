"""Hooks of a container on the host: what they get, what comes of their failures, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import hooks, spec
from innkeeper.shim.hooks import Hooks
from innkeeper.shim.state import State, load


def hook(script: str, **more: object) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["a hook", "-c", script], "env": ["PATH=/usr/bin:/bin", "OWN=1=2"], **more}


def hooks_of(bundle: Path, **listed: list[dict[str, Any]]) -> Hooks:
    return Hooks({"ociVersion": "1.2.0", "annotations": {"a": "b"}, "hooks": listed}, "one", State(bundle))


def test_they_run_in_order_and_get_the_state(tmp_path: Path) -> None:
    kinds = ("poststop", "createRuntime", "prestart", "poststart")
    made = hooks_of(tmp_path, **{kind: [hook(f"cat > {kind}.json; echo {kind} $0 >> order; env >> order")] for kind in kinds})
    assert made.has_creation()
    made.create(42)
    made.started(43)
    made.stopped()
    made.stopped()
    lines = (tmp_path / "order").read_text().splitlines()
    assert [line for line in lines if "hook" in line] == [
        f"{kind} a hook" for kind in ("prestart", "createRuntime", "poststart", "poststop")
    ]
    assert {"OWN=1=2", "PATH=/usr/bin:/bin"} <= set(lines) and not any(line.startswith("HOME=") for line in lines)
    said = {kind: json.loads((tmp_path / f"{kind}.json").read_text()) for kind in kinds}
    common = {"ociVersion": "1.2.0", "id": "one", "bundle": str(tmp_path), "annotations": {"a": "b"}}
    assert said["prestart"] == said["createRuntime"] == {**common, "status": "creating", "pid": 42}
    assert said["poststart"] == {**common, "status": "running", "pid": 43}
    assert said["poststop"] == {**common, "status": "stopped"}


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        (hook("echo why >&2; exit 3"), r"hooks.createRuntime: /bin/sh ended with status 3: why$"),
        (hook("kill -9 $$"), r"hooks.createRuntime: /bin/sh ended with status -9$"),
        (hook("sleep 1000 & wait", timeout=1), r"hooks.createRuntime: /bin/sh was not done within 1 s$"),
        ({"path": "/no/such/hook"}, r"hooks.createRuntime: /no/such/hook: No such file or directory$"),
    ],
)
def test_one_that_fails_ends_the_creation(tmp_path: Path, failing: dict[str, Any], message: str) -> None:
    made = hooks_of(tmp_path, createRuntime=[failing, hook("touch second")])
    with pytest.raises(InnkeeperError, match=message):
        made.create(1)
    assert not (tmp_path / "second").exists()


def test_failures_afterwards_are_only_logged(tmp_path: Path) -> None:
    made = hooks_of(tmp_path, poststart=[hook("exit 1"), hook("touch started")], poststop=[hook("exit 1"), hook("touch stopped")])
    assert not made.has_creation()
    made.create(1)
    made.started(1)
    made.stopped()
    assert {path.name for path in tmp_path.iterdir()} >= {"started", "stopped"}


def test_a_program_that_one_leaves_behind_holds_nothing_up(tmp_path: Path) -> None:
    hooks_of(tmp_path, prestart=[hook("sleep 5 & echo $! > pid")]).create(1)
    assert Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_what_is_due_outlives_the_shim(tmp_path: Path) -> None:
    document = {"hooks": {"poststop": [hook("echo x >> stopped")]}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    hooks.after_loss("one", load(tmp_path))
    assert not (tmp_path / "stopped").exists()
    Hooks(document, "one", State(tmp_path)).create(1)
    hooks.after_loss("one", load(tmp_path))
    assert (tmp_path / "stopped").read_text() == "x\n"


def document(**listed: list[dict[str, Any]]) -> dict[str, Any]:
    namespaces = [{"type": kind} for kind in ("network", "pid", "ipc", "uts", "mount")]
    process = {"args": ["sh"], "cwd": "/"}
    return {"hooks": listed, "linux": {"namespaces": namespaces}, "root": {"path": "rootfs"}, "process": process}


def test_those_of_the_container_go_to_the_guest() -> None:
    in_guest = {"path": "/bin/x"}
    made = spec.plan(document(startContainer=[in_guest], poststop=[hook("true")]), "c-one", {}).document
    assert made["hooks"] == {"startContainer": [in_guest]}


def test_those_that_can_run_nowhere_are_refused() -> None:
    with pytest.raises(InnkeeperError, match=r"hooks.createContainer: a program of the host cannot run in the namespaces"):
        spec.check(document(createContainer=[{"path": "/bin/x"}]))
    with pytest.raises(InnkeeperError, match=r"hooks.prestart: 'x' is not an absolute path"):
        spec.check(document(prestart=[{"path": "x"}]))
    spec.check(document(createContainer=[]))
