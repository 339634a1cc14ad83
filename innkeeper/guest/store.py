"""The store: results of build steps, each in a folder named by the hash of the step's inputs.

A result is made in a temporary folder. It is renamed into place when it is complete and on disk, so
a folder with a final name is always whole. Each step has a lock (flock(2), which the kernel drops
when its holder dies): a second build of the same step waits, says so, and reuses the result.

    <root>/NAME-ID16/            a result; `.step.json` in it records what it was made of
    <root>/.staging/NAME-ID16/    an unfinished result, or the rest of an interrupted build
                                 (removed by the next step)
    <root>/.locks/  .logs/       one file per step
    <root>/.archives/            Debian packages and wheels, as they were downloaded
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union, cast

from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file, locked, sync_folder

if TYPE_CHECKING:
    from innkeeper.guest.pins import Pins

JSON: TypeAlias = Union[str, int, bool, "list[JSON]", "dict[str, JSON]", None]

FORMAT = 1
"""The version of the format, part of every id.

Incremented when stored results change their meaning, so that older ones are not reused.
"""

RECORD = ".step.json"


@dataclass(frozen=True)
class StepRun:
    """A step that was asked for.

    It has whether the store had it, and the seconds that it took if it was made now.
    """

    name: str
    id: str
    in_store: bool
    seconds: float = 0.0


class Store:
    """The results of steps below `root`, which is created by the first step.

    `runs` has the steps that were asked for, each once, in the order in which they were ready.
    """

    only_plans = False
    """Whether steps are noted instead of made."""

    def __init__(self, root: Path, pins: "Pins | None" = None) -> None:
        self.root = root
        self._pins = pins
        self.runs: dict[str, StepRun] = {}

    @property
    def pins(self) -> "Pins":
        """Return the packages of the builders: the source tree's, unless others were given."""
        if self._pins is None:
            from innkeeper.guest import pins

            self._pins = pins.of_tree()
        return self._pins

    @pins.setter
    def pins(self, pins: "Pins") -> None:
        self._pins = pins

    def step(self, name: str, inputs: Mapping[str, JSON], make: Callable[[Path], None]) -> Path:
        """Return the folder with the result of step `name` for `inputs`.

        If it does not exist, `make` is called to fill an empty folder. Exceptions of `make` are
        passed on, and nothing is kept then. An InnkeeperError without a hint gets the log's path as
        its hint.
        """
        step_id = step_hash(name, inputs)
        result = self.root / f"{name}-{step_id[:16]}"
        if result.is_dir():
            self.runs.setdefault(step_id, StepRun(name, step_id, in_store=True))
            return result
        for folder in (".staging", ".locks", ".logs"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        with locked(self.root / ".locks" / result.name, work=f"builds the guest (step {name})"):
            start, in_store = time.monotonic(), result.is_dir()
            if not in_store:
                self._sweep()
                self._make(name, step_id, inputs, result, make)
        self.runs.setdefault(step_id, StepRun(name, step_id, in_store, 0.0 if in_store else time.monotonic() - start))
        return result

    def made(self, result: Path) -> bool:
        """Return whether a folder that `step` returned has its content.

        Only a store that plans says no.
        """
        return True

    def log_of(self, staging: Path) -> Path:
        """Return the path of a step's log.

        `staging` is the folder that `make` was given, or the step's result.
        """
        return self.root / ".logs" / f"{staging.name}.log"

    def has(self, name: str, inputs: Mapping[str, JSON]) -> bool:
        """Return whether the result exists already."""
        return (self.root / f"{name}-{step_hash(name, inputs)[:16]}").is_dir()

    def discard(self, result: Path) -> None:
        """Remove a result that has become useless because something outside the store was deleted.

        An example is a builder whose image is gone from buildah's storage. The folder is renamed
        before it is removed, so that an interrupted removal never looks like a finished result.
        """
        (self.root / ".staging").mkdir(parents=True, exist_ok=True)
        with locked(self.root / ".locks" / result.name):
            if result.is_dir():
                staging = self.root / ".staging" / result.name
                _remove(staging)
                result.rename(staging)
                _remove(staging)

    def _make(self, name: str, step_id: str, inputs: Mapping[str, JSON], result: Path, make: Callable[[Path], None]) -> None:
        staging = self.root / ".staging" / result.name
        _remove(staging)
        staging.mkdir()
        try:
            make(staging)
            record = {"name": name, "id": step_id, "inputs": dict(inputs)}
            (staging / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
            _sync_filesystem(staging)
            staging.rename(result)
            sync_folder(self.root)
        except InnkeeperError as error:
            log = self.log_of(staging)
            if error.hint is None and log.exists():
                error.hint = f"the whole output is in {log}"
            raise
        finally:
            _remove(staging)

    def _sweep(self) -> None:
        """Remove what interrupted builds left: folders in `.staging` whose lock is free."""
        # `.making` is its name in caches of earlier versions.
        for left in [*(self.root / ".staging").iterdir(), *(self.root / ".making").glob("*")]:
            try:
                with locked(self.root / ".locks" / left.name, wait=False):
                    _remove(left)
            except BlockingIOError:
                continue


class NotBuilt(Exception):
    """The store has no result of a step."""


class FinishedSteps(Store):
    """A store that is only read: a missing step raises NotBuilt instead of being made."""

    def step(self, name: str, inputs: Mapping[str, JSON], make: Callable[[Path], None]) -> Path:
        if not self.has(name, inputs):
            raise NotBuilt(name)
        return super().step(name, inputs, make)


UNKNOWN = "unknown until it is made: "
"""The prefix of a value that a plan has in place of the content of an unfinished step."""


def unknown(result: Path) -> str:
    """Return the value that stands for the content of a step that is not made yet."""
    return UNKNOWN + result.name


def step_hash(name: str, inputs: Mapping[str, JSON]) -> str:
    """Return the id of a step: the sha256 of its name and inputs in a canonical form."""
    document = {"format": FORMAT, "name": name, "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def record_of(result: Path) -> dict[str, JSON]:
    """Return what a result was made of: `name`, `id` and `inputs`."""
    return cast("dict[str, JSON]", json.loads((result / RECORD).read_text()))


def hash_tree(root: Path, patterns: Iterable[str] = ("**/*",)) -> dict[str, JSON]:
    """Return a map from each path below `root` to what decides a build about it.

    That is the content and whether the file is executable, or a link's target. Python's caches are
    left out.
    """
    found: dict[str, JSON] = {}
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        if "__pycache__" in path.parts or path.suffix == ".pyc":
            continue
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"link {os.readlink(path)}"
        elif path.is_file():
            kind = "program" if path.stat().st_mode & 0o100 else "file"
            found[str(path.relative_to(root))] = f"{kind} {hash_file(path)}"
    return found


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _sync_filesystem(folder: Path) -> None:
    """Write everything to disk (syncfs(2)) before a rename makes the result look finished."""
    from innkeeper.libc import check, libc

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check(libc.syncfs(descriptor), path=folder)
    finally:
        os.close(descriptor)
