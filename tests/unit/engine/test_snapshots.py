"""The store of snapshots: whole or not there, kept while in use, nothing left of what was interrupted."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from innkeeper import files
from innkeeper.engine import control, records, snapshots
from innkeeper.errors import InnkeeperError
from innkeeper.paths import snapshots_root
from innkeeper.vm import registry


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))


@contextmanager
def running(*, fails: bool = False, warning: str | None = None) -> Iterator[records.Container]:
    """A container whose owner answers a snapshot, without a VM."""
    entry = registry.create("web")
    entry.update(container={"image": "busybox", "digest": "", "status": "running"}, address="unix:///nowhere")

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        (Path(request["into"]) / "state").write_bytes(b"memory")
        if fails:
            raise InnkeeperError("the disk is full")
        (Path(request["into"]) / "snapshot.json").write_text(json.dumps({"container": "web"}))
        return {"warning": warning, "seconds": 1.0, "frozen_seconds": 0.5}

    try:
        with control.serving(entry.folder, handle, lambda: None):
            yield records.lookup("web")
    finally:
        entry.release()


def everything() -> list[str]:
    return sorted(path.name for path in snapshots_root().iterdir() if path.name != ".lock")


def test_take_list_remove() -> None:
    with running() as container:
        taken = snapshots.take(container, "one")
        assert taken.document()["container"] == "web"
        assert [one.tag for one in snapshots.every()] == ["one"]
        assert snapshots.exists("one") and not snapshots.exists("two") and not snapshots.exists("../one")
        with pytest.raises(InnkeeperError, match="snapshot one exists"):
            snapshots.take(container, "one")
        assert everything() == ["one"]
    snapshots.remove("one")
    assert everything() == []
    with pytest.raises(InnkeeperError, match="no such snapshot: one"):
        snapshots.remove("one")
    with pytest.raises(InnkeeperError, match="no such snapshot: one"), snapshots.found("one"):
        raise AssertionError("not reached")


@pytest.mark.parametrize("tag", ["", "..", "a/b", ".hidden", "a b"])
def test_a_tag_is_a_plain_name(tag: str) -> None:
    with running() as container, pytest.raises(InnkeeperError, match="invalid tag"):
        snapshots.take(container, tag)


def test_a_failure_leaves_nothing() -> None:
    with running(fails=True) as container:
        with pytest.raises(InnkeeperError, match="the disk is full"):
            snapshots.take(container, "one")
        with pytest.raises(InnkeeperError, match="the disk is full"), snapshots.temporary(container):
            raise AssertionError("not reached")
    assert everything() == []


def test_a_hook_that_fails_afterwards_is_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    with running(warning="hook after-snapshot: it ended with status 1") as container:
        snapshots.take(container, "one")
    assert "the snapshot is made, but hook after-snapshot: it ended with status 1" in capfd.readouterr().err
    assert everything() == ["one"]


def test_one_without_a_tag_ends_with_its_use() -> None:
    with running() as container, snapshots.temporary(container) as made:
        assert (made.folder / "state").read_bytes() == b"memory"
        assert snapshots.every() == []
    assert everything() == []


def test_one_that_is_in_use_stays() -> None:
    with running() as container:
        snapshots.take(container, "one")
    with snapshots.found("one"):
        with pytest.raises(InnkeeperError, match="in use"):
            snapshots.remove("one")
        assert snapshots.exists("one")
    snapshots.remove("one")


def test_what_a_killed_process_left_is_removed_by_the_next() -> None:
    with running() as container:
        snapshots.take(container, "one")
        for name in (".left", ".made-now"):
            (snapshots_root() / name).mkdir()
            (snapshots_root() / name / "lock").touch()
        held = files.lock(snapshots_root() / ".made-now" / "lock")
        snapshots.take(container, "two")
        assert everything() == [".made-now", "one", "two"]
        os.close(held)


def test_a_damaged_one_is_named() -> None:
    with running() as container:
        taken = snapshots.take(container, "one")
    (taken.folder / "snapshot.json").write_text("{")
    with pytest.raises(InnkeeperError, match="snapshot one is damaged") as raised:
        taken.document()
    assert raised.value.hint == "build.py snapshots rm one"


def test_a_container_that_has_ended_is_refused() -> None:
    entry = registry.create("web")
    entry.update(keep=True, container={"image": "", "digest": "", "status": "exited"})
    entry.release()
    with pytest.raises(InnkeeperError, match="not running"):
        snapshots.take(records.lookup("web"), "one")
