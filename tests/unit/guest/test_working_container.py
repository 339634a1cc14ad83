"""What a killed build leaves: its working container, which the next build removes."""

from pathlib import Path

from innkeeper import files
from innkeeper.guest.buildah import Buildah
from innkeeper.guest.working_container import _lock_path, remove_abandoned


class Listed(Buildah):
    """A buildah that has containers without making any."""

    def __init__(self, folder: Path, *names: str) -> None:
        super().__init__(folder)
        self.names = list(names)

    def containers(self) -> list[str]:
        return self.names

    def rm(self, container: str) -> None:
        self.names.remove(container)


def test_containers_without_an_owner_are_removed(tmp_path: Path) -> None:
    buildah = Listed(tmp_path, "innkeeper-1-dead", "innkeeper-2-alive", "of-somebody-else")
    for name in ("innkeeper-1-dead", "innkeeper-2-alive", "innkeeper-3-never-made"):
        _lock_path(buildah, name).parent.mkdir(exist_ok=True)
        _lock_path(buildah, name).touch()
    with files.locked(_lock_path(buildah, "innkeeper-2-alive")):
        remove_abandoned(buildah)
    assert buildah.names == ["innkeeper-2-alive", "of-somebody-else"]
    assert [path.name for path in (tmp_path / "locks").iterdir()] == ["innkeeper-2-alive"]


def test_a_first_build_finds_nothing(tmp_path: Path) -> None:
    remove_abandoned(Listed(tmp_path))
    assert not list(tmp_path.iterdir())
