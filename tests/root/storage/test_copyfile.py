"""CopyFile on a real directory tree, and what must not get out of it."""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from agent import loop
from agent.errors import AgentError, Refused, StepFailed, WrongState
from agent.linux.mount import MNT_DETACH, clone_tree, move_mount_path, umount2
from agent.storage import copyfile
from agent.storage.copyfile import MAX_OPEN, SHARED_CONTAINERS, FileCopies
from innkeeper.wire.pb.agent_pb2 import CopyFileRequest

pytestmark = pytest.mark.root


@pytest.fixture(params=["/run", "here"], autouse=True)
def _memory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is done by a worker, and again with small files written directly."""
    memory = str(tmp_path) if request.param == "here" else request.param
    monkeypatch.setattr(FileCopies.__init__, "__defaults__", (SHARED_CONTAINERS, memory))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "shared"
    directory.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    return directory


def file(path: Path | str, data: bytes = b"", *, offset: int = 0, size: int | None = None, mode: int = 0o640) -> CopyFileRequest:
    total = len(data) + offset if size is None else size
    return CopyFileRequest(
        path=str(path), data=data, offset=offset, file_size=total, file_mode=stat.S_IFREG | mode, dir_mode=0o750, uid=10, gid=20
    )


def link(path: Path | str, target: str) -> CopyFileRequest:
    return CopyFileRequest(path=str(path), data=target.encode(), file_mode=stat.S_IFLNK | 0o777, dir_mode=0o750, uid=10, gid=20)


def directory(path: Path | str, mode: int = 0o755) -> CopyFileRequest:
    return CopyFileRequest(path=str(path), file_mode=stat.S_IFDIR | mode, dir_mode=0o750, uid=10, gid=20)


def copy(root: Path, requests: Iterable[CopyFileRequest], copies: FileCopies | None = None) -> None:
    service = copies or FileCopies(str(root))

    async def main() -> None:
        for request in requests:
            await service.copy(request)

    loop.run(main())


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob(".copy-*"))


def test_a_file_with_its_parents(root: Path) -> None:
    copy(root, [file(root / "a/b/resolv.conf", b"nameserver 1.1.1.1\n", mode=0o4644)])
    assert (root / "a/b/resolv.conf").read_text() == "nameserver 1.1.1.1\n"
    assert owner_and_mode(root / "a/b/resolv.conf") == (10, 20, 0o4644)
    assert owner_and_mode(root / "a/b") == (10, 20, 0o750)
    assert leftovers(root) == []


def test_a_file_in_parts_appears_with_the_last(root: Path) -> None:
    copies = FileCopies(str(root))
    data = os.urandom(2_500_000)
    parts = [file(root / "big", data[at : at + 1_000_000], offset=at, size=len(data)) for at in range(0, len(data), 1_000_000)]
    copy(root, parts[:2], copies)
    assert not (root / "big").exists()
    copy(root, parts[2:], copies)
    assert (root / "big").read_bytes() == data
    assert leftovers(root) == []


def test_an_empty_file(root: Path) -> None:
    copy(root, [file(root / "empty")])
    assert (root / "empty").read_bytes() == b""


def test_names_that_differ_in_their_ending_only(root: Path) -> None:
    whole = {name: os.urandom(20) for name in ("a.txt", "a.conf")}
    first = [file(root / name, data[:10], size=20) for name, data in whole.items()]
    second = [file(root / name, data[10:], offset=10) for name, data in whole.items()]
    copy(root, [*first, *second])
    assert {name: (root / name).read_bytes() for name in whole} == whole


def test_the_longest_name(root: Path) -> None:
    copy(root, [file(root / ("n" * 255), b"x")])
    assert (root / ("n" * 255)).read_bytes() == b"x"


def test_config_map_is_replaced(root: Path) -> None:
    for stamp in ("..2026_01", "..2026_02"):
        copy(
            root,
            [
                directory(root / "map"),
                directory(root / "map" / stamp),
                file(root / "map" / stamp / "key", stamp.encode()),
                link(root / "map/..data", stamp),
                link(root / "map/key", "..data/key"),
            ],
        )
        assert (root / "map/key").read_text() == stamp
    assert os.readlink(root / "map/..data") == "..2026_02"
    assert owner_and_mode(root / "map/..data")[:2] == (10, 20)
    assert leftovers(root) == []


def test_what_was_copied_is_removed(root: Path, tmp_path: Path) -> None:
    copies, outside = FileCopies(str(root)), tmp_path / "outside"
    copy(
        root, [file(root / "map/..old/key"), link(root / "map/key", "..old/key"), link(root / "out", str(outside)), file(root / "map/kept")]
    )
    for name in ("map/key", "map/..old", "map/..old", "none/none"):
        loop.run(copies.remove(f"{root}/{name}"))
    assert [path.name for path in (root / "map").iterdir()] == ["kept"]
    for path in (f"{root}/out/secret", f"{root}/../outside/file", str(root)):
        with pytest.raises((Refused, StepFailed)):
            loop.run(copies.remove(path))
    loop.run(copies.remove(f"{root}/out"))  # the link, and not what it leads to
    assert (outside / "secret").exists() and not (root / "out").is_symlink()


def test_one_kind_replaces_another(root: Path) -> None:
    target = root / "x"
    copy(root, [file(target / "deep/file", b"1"), file(target, b"2")])
    assert target.read_bytes() == b"2"
    copy(root, [directory(target)])
    assert target.is_dir()
    copy(root, [file(target / "below"), link(target, "/nowhere")])
    assert os.readlink(target) == "/nowhere"
    copy(root, [directory(target, 0o711)])
    assert owner_and_mode(target) == (10, 20, 0o711)
    assert not target.is_symlink()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/x",
        "{root}/../outside/x",
        "{root}/a/../../outside/x",
        "{root}",
        "{root}/",
        "relative",
        "",
        "{root}/./x",
        "{root}//x",
        "{root}x/y",
    ],
)
def test_paths_outside_are_refused(root: Path, path: str) -> None:
    with pytest.raises(Refused) as caught:
        copy(root, [file(path.format(root=root), b"x")])
    assert caught.value.field == "path"
    assert [entry.name for entry in (root.parent / "outside").iterdir()] == ["secret"]


@pytest.mark.parametrize("target", ["{outside}", "../outside", "../../../../../../../../{outside}", "/"])
@pytest.mark.parametrize("nested", [False, True])
def test_links_lead_nowhere_outside(root: Path, target: str, nested: bool) -> None:
    outside = root.parent / "outside"
    where = target.format(outside=outside)
    name = "l/sub/made" if nested else "l/made"
    try:
        copy(root, [link(root / "l", where), file(root / name, b"x"), directory(root / "l/dir")])
    except AgentError:
        pass
    assert sorted(entry.name for entry in outside.iterdir()) == ["secret"]
    assert not Path("/made").exists() and not Path("/dir").exists() and not Path("/sub").exists()


def test_a_file_replaces_a_link_and_not_what_it_points_at(root: Path) -> None:
    secret = root.parent / "outside/secret"
    copy(root, [link(root / "l", str(secret)), file(root / "l", b"mine")])
    assert secret.read_text() == "secret"
    assert (root / "l").read_bytes() == b"mine"
    assert not (root / "l").is_symlink()


def test_a_directory_replaces_a_link_and_not_what_it_points_at(root: Path) -> None:
    before = (root.parent / "outside").stat()
    copy(root, [link(root / "l", str(root.parent / "outside")), directory(root / "l", 0o700)])
    after = (root.parent / "outside").stat()
    assert (before.st_uid, before.st_mode) == (after.st_uid, after.st_mode)
    assert not (root / "l").is_symlink()


def test_removing_a_tree_follows_no_link(root: Path) -> None:
    copy(root, [directory(root / "tree"), link(root / "tree/l", str(root.parent / "outside")), file(root / "tree", b"x")])
    assert (root.parent / "outside/secret").read_text() == "secret"


def test_a_loop_of_links_is_an_error(root: Path) -> None:
    with pytest.raises(AgentError):
        copy(root, [link(root / "a", "b"), link(root / "b", "a"), file(root / "a/x", b"x")])
    assert leftovers(root) == []


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_other_kinds_of_files_are_refused(root: Path, kind: int) -> None:
    with pytest.raises(Refused, match="file_mode"):
        copy(root, [CopyFileRequest(path=f"{root}/x", file_mode=kind | 0o600)])
    assert list(root.iterdir()) == []


def test_parts_must_come_in_order(root: Path) -> None:
    with pytest.raises(WrongState):
        copy(root, [file(root / "x", b"b", offset=1, size=3)])
    with pytest.raises(WrongState):
        copy(root, [file(root / "x", b"a", size=3), file(root / "x", b"c", offset=2)])


@pytest.mark.parametrize(
    "request_",
    [{"offset": -1, "size": 5}, {"offset": 0, "size": -1}, {"offset": 4, "size": 4}, {"offset": 0, "size": 0}],
)
def test_sizes_that_do_not_fit(root: Path, request_: dict[str, int]) -> None:
    with pytest.raises(Refused, match="offset"):
        copy(root, [file(root / "x", b"data", **request_)])


def test_a_copy_begun_again_leaves_nothing_of_the_first(root: Path) -> None:
    copy(root, [file(root / "x", b"first", size=10), file(root / "x", b"second")])
    assert (root / "x").read_bytes() == b"second"
    assert leftovers(root) == []


def test_copies_never_finished_are_bounded(root: Path) -> None:
    copy(root, [file(root / f"x{number}", b"a", size=2) for number in range(MAX_OPEN + 5)])
    assert len(leftovers(root)) == MAX_OPEN


@pytest.mark.parametrize("place", ["", "below", "below/file"])
def test_a_mount_on_the_way_is_left_to_a_worker(place: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a share, whose server may not answer, and PID 1 must not wait for it."""
    (root / "below").mkdir()
    (root / "below/file").write_bytes(b"")
    works: list[str] = []

    async def note(work: Callable[[], bytes | None], name: str) -> bytes:
        works.append(name)
        return b""

    monkeypatch.setattr(copyfile, "run_in_worker", note)
    mount = clone_tree(os.open(root / place, os.O_PATH), False)
    move_mount_path(mount, str(root / place))
    try:
        copy(root, [file(root / "below/file", b"x")])
    finally:
        umount2(str(root / place), MNT_DETACH)
    assert works == [f"copy {root}/below/file"]
