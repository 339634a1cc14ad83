"""Working containers of buildah, each locked by the build that uses it.

A build that is killed leaves its container behind. The next build removes it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from innkeeper import files
from innkeeper.guest.buildah import Buildah


@contextmanager
def working_container(buildah: Buildah, image: str) -> Iterator[str]:
    """Context manager: yield the name of a working container of `image`.

    It is locked, so that other builds see that it is in use.
    """
    name = f"innkeeper-{os.getpid()}-{os.urandom(4).hex()}"
    path = _lock_path(buildah, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path):
        try:
            buildah.from_(image, name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        try:
            yield name
        finally:
            buildah.rm(name)
            path.unlink(missing_ok=True)


def remove_abandoned(buildah: Buildah) -> None:
    """Remove working containers whose owner was killed.

    The kernel drops a flock(2) lock when its holder dies, so a lock that can be taken means an
    abandoned container.
    """
    for path in _lock_path(buildah, "").glob("innkeeper-*"):
        try:
            lock = files.lock(path, flags=os.O_RDWR, wait=False)
        except (FileNotFoundError, BlockingIOError):
            continue
        try:
            if path.name in buildah.containers():
                buildah.rm(path.name)
            path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _lock_path(buildah: Buildah, name: str) -> Path:
    return buildah.folder / "locks" / name
