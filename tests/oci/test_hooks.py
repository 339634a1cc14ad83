"""Hooks of a container by the command: those after the start also when the program has ended at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.needs import needs
from tests.oci.oci_helpers import Bundle, Runtime

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox")]


def noting(path: Path) -> dict[str, Any]:
    """A hook that keeps the state it is given, a line each time."""
    return {"path": "/bin/sh", "args": ["sh", "-c", f"cat >>{path}; echo >>{path}"], "env": ["PATH=/usr/bin:/bin"]}


@pytest.mark.parametrize("program", [["true"], ["sh", "-c", "kill -9 $$"], ["sleep", "0.2"]])
def test_hooks_after_the_start_run_though_the_program_has_ended(
    runtime: Runtime, bundle: Bundle, tmp_path: Path, program: list[str]
) -> None:
    bundle.document["hooks"] = {"poststart": [noting(tmp_path / "started")], "poststop": [noting(tmp_path / "stopped")]}
    bundle.args(*program).save("a")
    for _ in range(3):
        runtime.try_("run", "-b", bundle.path, "a")
        runtime("run", "--detach", "-b", bundle.path, "a")
        runtime("delete", "--force", "a")
        runtime("create", "-b", bundle.path, "a")
        runtime("start", "a")
        runtime("delete", "--force", "a")
    for name, status in (("started", "running"), ("stopped", "stopped")):
        states = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert [(state["id"], state["status"]) for state in states] == [("a", status)] * 9
