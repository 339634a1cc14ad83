"""The store: a result is whole or not there, whoever is interrupted and however many build at once."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.guest.store import Store, hash_tree, record_of, step_hash
from tests.eventually import eventually, pause


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def writes(text: str, calls: list[str] | None = None) -> Callable[[Path], None]:
    """A `make` that leaves a file."""

    def make(out: Path) -> None:
        if calls is not None:
            calls.append(text)
        (out / "result").write_text(text)

    return make


def test_a_step_is_made_once(store: Store) -> None:
    calls: list[str] = []
    first = store.step("step", {"a": 1}, writes("x", calls))
    assert store.step("step", {"a": 1}, writes("y", calls)) == first
    assert (first / "result").read_text() == "x"
    assert calls == ["x"]
    assert store.has("step", {"a": 1}) and not store.has("step", {"a": 2})


def test_the_record_says_what_it_was_made_of(store: Store) -> None:
    result = store.step("step", {"b": ["c", None], "a": True}, writes("x"))
    step_id = step_hash("step", {"a": True, "b": ["c", None]})
    assert record_of(result) == {"name": "step", "id": step_id, "inputs": {"a": True, "b": ["c", None]}}
    assert result.name == f"step-{step_id[:16]}"


def test_a_failure_leaves_nothing_and_names_its_log(store: Store) -> None:
    def fails(out: Path) -> None:
        (out / "half").write_text("half")
        store.log_of(out).write_text("why\n")
        raise InnkeeperError("broken")

    with pytest.raises(InnkeeperError, match="broken") as raised:
        store.step("step", {}, fails)
    assert not store.has("step", {})
    assert list((store.root / ".staging").iterdir()) == []
    assert raised.value.hint is not None and str(store.root / ".logs") in raised.value.hint


def test_what_is_killed_while_it_is_made_does_not_look_finished(store: Store) -> None:
    def never_ends(out: Path) -> None:
        (out / "half").write_text("half")
        signal.pause()

    pid = os.fork()
    if pid == 0:
        try:
            store.step("step", {}, never_ends)
        finally:
            os._exit(1)
    staging = store.root / ".staging"
    eventually(lambda: list(staging.glob("*/half")))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not store.has("step", {})
    store.step("other", {}, writes("x"))
    assert list(staging.iterdir()) == []  # swept by the next step, whichever it is
    assert (store.step("step", {}, writes("whole")) / "result").read_text() == "whole"


def build_slowly(root: Path) -> str:
    def slow(out: Path) -> None:
        with open(root / "calls", "a") as file:
            file.write("call\n")
        pause(0.5, "the others come while one is at it")
        (out / "result").write_text("x")

    return (Store(root).step("step", {}, slow) / "result").read_text()


def test_several_at_once_make_it_once_and_all_get_it(store: Store) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(build_slowly, [store.root] * 3, chunksize=1) == ["x", "x", "x"]
    assert (store.root / "calls").read_text() == "call\n"


def test_discarding_removes_it(store: Store) -> None:
    result = store.step("step", {}, writes("x"))
    store.discard(result)
    assert not result.exists() and not store.has("step", {})


def test_the_hash_of_a_tree_sees_content_mode_and_links_only(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("1")
    (tmp_path / "a/link").symlink_to("file")
    before = hash_tree(tmp_path)
    os.utime(tmp_path / "a/file", (1, 1))
    (tmp_path / "a/__pycache__").mkdir()
    (tmp_path / "a/__pycache__/x.pyc").write_text("cache")
    assert hash_tree(tmp_path) == before
    (tmp_path / "a/file").chmod(0o755)
    executable = hash_tree(tmp_path)
    (tmp_path / "a/file").write_text("2")
    assert len({str(before), str(executable), str(hash_tree(tmp_path))}) == 3
