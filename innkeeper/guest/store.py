"""The store: results of build steps, each in a folder named by the hash of the step's inputs.

A result is made in a temporary folder and renamed into place when it is complete and on disk, so what has its final name
is whole. One lock a step (flock(2), which the kernel drops when its holder dies) lets a second build wait and reuse.

    <root>/NAME-ID16/            a result; `.step.json` in it says what it was made of
    <root>/.making/NAME-ID16/    a result that is not ready, or what an interrupted build left (removed by the next step)
    <root>/.locks/  .logs/       one file a step
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, Union, cast

from innkeeper.errors import InnkeeperError

JSON: TypeAlias = Union[str, int, bool, "list[JSON]", "dict[str, JSON]", None]

FORMAT = 1
"""Part of every id. Raised when stored results change their meaning, so that older ones are not reused."""

RECORD = ".step.json"


class Store:
    """Results of steps below `root`, which is made on the first step."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def step(self, name: str, inputs: Mapping[str, JSON], make: Callable[[Path], None]) -> Path:
        """The folder that holds the result of step `name` for `inputs`; `make` fills an empty one if there is none yet.

        What `make` raises passes through, and then nothing is kept. An InnkeeperError gets the log's path as its hint if it
        has none.
        """
        step_id = step_hash(name, inputs)
        result = self.root / f"{name}-{step_id[:16]}"
        if result.is_dir():
            return result
        for folder in (".making", ".locks", ".logs"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        with _locked(self.root / ".locks" / result.name):
            if not result.is_dir():
                self._sweep()
                self._make(name, step_id, inputs, result, make)
        return result

    def log_of(self, making: Path) -> Path:
        """Where the output of the step goes whose folder is `making` (what `make` was given, or its result)."""
        return self.root / ".logs" / f"{making.name}.log"

    def has(self, name: str, inputs: Mapping[str, JSON]) -> bool:
        """Whether the result is there already."""
        return (self.root / f"{name}-{step_hash(name, inputs)[:16]}").is_dir()

    def discard(self, result: Path) -> None:
        """Remove a result whose surroundings (a container's storage) are gone. It stops looking finished before it is removed."""
        (self.root / ".making").mkdir(parents=True, exist_ok=True)
        with _locked(self.root / ".locks" / result.name):
            if result.is_dir():
                making = self.root / ".making" / result.name
                _remove(making)
                result.rename(making)
                _remove(making)

    def _make(self, name: str, step_id: str, inputs: Mapping[str, JSON], result: Path, make: Callable[[Path], None]) -> None:
        making = self.root / ".making" / result.name
        _remove(making)
        making.mkdir()
        try:
            make(making)
            record = {"name": name, "id": step_id, "inputs": dict(inputs)}
            (making / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
            _sync_filesystem(making)
            making.rename(result)
            _sync_folder(self.root)
        except InnkeeperError as error:
            log = self.log_of(making)
            if error.hint is None and log.exists():
                error.hint = f"the whole output is in {log}"
            raise
        finally:
            _remove(making)

    def _sweep(self) -> None:
        """Remove what interrupted builds left: a folder in `.making` whose lock is free."""
        for left in (self.root / ".making").iterdir():
            try:
                with _locked(self.root / ".locks" / left.name, wait=False):
                    _remove(left)
            except BlockingIOError:
                continue


def step_hash(name: str, inputs: Mapping[str, JSON]) -> str:
    """The id of a step: sha256 over its name and inputs in one canonical writing."""
    document = {"format": FORMAT, "name": name, "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def record_of(result: Path) -> dict[str, JSON]:
    """What a result was made of: `name`, `id`, `inputs`."""
    return cast("dict[str, JSON]", json.loads((result / RECORD).read_text()))


def hash_file(path: Path) -> str:
    """The sha256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(root: Path, patterns: Iterable[str] = ("**/*",)) -> dict[str, JSON]:
    """Path below `root` -> what decides a build: content, whether executable, or a link's target. Caches of Python are left out."""
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


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a step. The file stays: removing it would let two holders lock two files of one name."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _sync_filesystem(folder: Path) -> None:
    """Put on disk what was written (syncfs(2)), before a rename makes it look finished."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
