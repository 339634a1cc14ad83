"""An ordinary user makes the very same device: nothing is unpacked, so nothing needs root."""

import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.image import resolve
from tests.needs import needs
from tests.root.image.test_exact import run

pytestmark = [pytest.mark.root, needs("buildah", "skopeo")]
NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user may enter; pytest's own are root's alone."""
    made = Path(tempfile.mkdtemp(prefix="innkeeper-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def as_user(uid: int, home: Path, reference: str) -> int:
    """resolve() in a child that has become `uid`; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            os.environ.update(INNKEEPER_CACHE=str(home / "cache"), HOME=str(home))
            os.chdir(home)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            resolve(reference)
            os._exit(0)
        except BaseException:  # noqa: BLE001  # the child must end here, whatever happens
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_same_bits_as_root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "make").mkdir()
    archive = f"oci-archive:{folder}/image.tar"
    run(sys.executable, "-m", "tests.root.image.image_layers", folder / "make", archive)
    (folder / "image.tar").chmod(0o644)
    home = folder / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    assert as_user(NOBODY, home, archive) == 0
    monkeypatch.setenv("INNKEEPER_CACHE", str(folder / "cache"))
    image = resolve(archive)
    theirs = home / "cache/images" / image.erofs.parent.name / "image.erofs"
    assert theirs.stat().st_uid == NOBODY
    assert theirs.read_bytes() == image.erofs.read_bytes()
