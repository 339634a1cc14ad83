"""The namespaces of a sandbox: PID 1 makes them and is not in them afterwards."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.errors import StepFailed
from agent.linux import process
from agent.pod.namespaces import SharedNamespaces
from tests.forked import CLONE_NEWNS, forked

pytestmark = pytest.mark.root


def own() -> tuple[dict[str, str], str, int]:
    """The namespaces and host name of this process, and how many descriptors it has."""
    kinds = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("ipc", "uts")}
    return kinds, socket.gethostname(), len(os.listdir("/proc/self/fd"))


def test_the_namespaces_are_made_and_left(tmp_path: Path) -> None:
    def child() -> None:
        before, namespaces = own(), SharedNamespaces()
        namespaces.make("of-the-sandbox", str(tmp_path))
        assert own() == before
        for kind, path in namespaces.paths.items():
            assert f"{kind}:[{os.stat(path).st_ino}]" != before[0][kind]
        with open(namespaces.paths["uts"]) as uts:
            process.setns(uts.fileno(), process.CLONE_NEWUTS)
        assert socket.gethostname() == "of-the-sandbox"
        namespaces.unmake(str(tmp_path))
        assert (tmp_path / "uts").read_text() == ""

    forked(child, unshare=CLONE_NEWNS)


@pytest.mark.parametrize("step", ["unshare", "sethostname"])
def test_a_failure_leaves_them_too(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def child() -> None:
        before = own()
        with pytest.raises(StepFailed, match="No space left"):
            SharedNamespaces().make("name", str(tmp_path))
        assert own() == before

    if step == "unshare":
        real = process.unshare
        monkeypatch.setattr(process, "unshare", lambda flags: fail() if flags == process.CLONE_NEWUTS else real(flags))
    else:
        monkeypatch.setattr(socket, "sethostname", fail)
    forked(child, unshare=CLONE_NEWNS)
