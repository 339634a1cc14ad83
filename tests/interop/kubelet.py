"""A pod's volumes where the kubelet has them and as it writes them: Kata's shim tells them by their paths."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

KUBELET = Path("/var/lib/kubelet")


def write_map(folder: Path, version: str, content: str) -> None:
    """As kubelet does it: a folder for each version, a link to it that is exchanged, and links through that one.

    Last goes the folder of the version before, which is what the shim waits for.
    """
    before = list(folder.glob("..[0-9]*"))
    (folder / version).mkdir(parents=True)
    (folder / version / "key").write_text(content)
    (folder / "..data_tmp").symlink_to(version)
    os.replace(folder / "..data_tmp", folder / "..data")
    if not (folder / "key").is_symlink():
        (folder / "key").symlink_to("..data/key")
    for old in before:
        shutil.rmtree(old)


@pytest.fixture
def volumes() -> Iterator[Path]:
    """A pod's volumes where kubelet has them: only there does the shim look for changes."""
    folder = KUBELET / "pods" / str(uuid.uuid4())
    ours = next(path for path in reversed([folder, *folder.parents]) if not path.exists())
    yield folder / "volumes"
    shutil.rmtree(ours)
