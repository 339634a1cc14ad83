"""CopyFile, dm-verity's layout and programs of the guest, without root."""

import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.errors import AgentError, Refused, StepFailed, WrongState
from agent.linux import dm
from agent.storage import copyfile, guest_program, verity
from agent.storage.copyfile import MAX_OPEN, FileCopies
from innkeeper.wire.pb.agent_pb2 import CopyFileRequest
from tests.descriptors import open_descriptors
from tests.eventually import DEADLINE, eventually
from tests.unit.storage.kernel import Kernel, mode_of, run_here

OWNER: dict[str, Any] = {"uid": os.getuid(), "gid": os.getgid()}
HASH = "ab" * 32


def copy(root: Path, *requests: CopyFileRequest) -> None:
    async def main() -> None:
        copies = FileCopies(str(root))
        for request in requests:
            await copies.copy(request)

    loop.run(main())


def part(path: Path, data: bytes, offset: int, size: int) -> CopyFileRequest:
    return CopyFileRequest(path=str(path), data=data, offset=offset, file_size=size, file_mode=stat.S_IFREG | 0o640, **OWNER)


def test_a_file_appears_with_its_last_part(mounts: Kernel, tmp_path: Path) -> None:
    root = tmp_path / "root"
    copy(root, part(root / "a/b/file", b"one ", 0, 7))
    assert [path.name[:6] for path in (root / "a/b").iterdir()] == [".copy-"]
    copy(root, part(root / "a/c", b"one ", 0, 7), part(root / "a/c", b"two", 4, 7))
    assert ((root / "a/c").read_bytes(), mode_of(root / "a/c"), mode_of(root / "a")) == (b"one two", 0o640, 0o750)


def test_each_kind_takes_the_place_of_another(mounts: Kernel, tmp_path: Path) -> None:
    root, path = tmp_path / "root", tmp_path / "root/x"
    directory = CopyFileRequest(path=str(path), file_mode=stat.S_IFDIR | 0o711, **OWNER)
    link = CopyFileRequest(path=str(path), data=b"target", file_mode=stat.S_IFLNK, **OWNER)
    copy(root, directory, part(path / "below", b"", 0, 0), link)
    assert os.readlink(path) == "target"
    copy(root, directory)
    assert mode_of(path) == 0o711
    copy(root, part(path, b"x", 0, 1))
    assert path.read_bytes() == b"x"


def test_a_link_does_not_lead_out(mounts: Kernel, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    copy(root, part(root / "link/file", b"x", 0, 1))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"path": "/etc/passwd"}, Refused),
        ({"path": "ROOT/../x"}, Refused),
        ({"uid": -1}, Refused),
        ({"file_mode": stat.S_IFIFO}, Refused),
        ({"offset": -1}, Refused),
        ({"offset": 2, "file_size": 1}, Refused),
        ({"file_size": 5}, Refused),
        ({"offset": 1, "file_size": 5, "data": b"x"}, WrongState),
    ],
)
def test_requests_that_are_refused(fields: dict[str, Any], error: type[AgentError], mounts: Kernel, tmp_path: Path) -> None:
    fields = {"path": f"{tmp_path}/x", **OWNER, **fields}
    fields["path"] = fields["path"].replace("ROOT", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error):
        copy(tmp_path, CopyFileRequest(**fields))
    assert sorted(tmp_path.iterdir()) == before


def test_unfinished_copies_are_bounded(mounts: Kernel, tmp_path: Path) -> None:
    root = tmp_path / "root"
    begun = [part(root / f"file{number}", b"x", 0, 2) for number in range(MAX_OPEN + 3)]
    copy(root, *begun, begun[-1])
    assert len(list(root.iterdir())) == MAX_OPEN


def test_a_small_file_in_memory_takes_no_worker(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "shared/containers"
    monkeypatch.setattr(copyfile, "run_in_worker", None)
    copies = FileCopies(str(root), str(tmp_path))
    for data in (b"one", b"two"):
        loop.run(copies.copy(part(root / "file", data, 0, 3)))
        assert (root / "file").read_bytes() == data
    assert [path.name for path in root.iterdir()] == ["file"]
    assert mode_of(root / "file") == 0o640


@pytest.mark.parametrize("obstacle", ["missing", "link above", "link", "directory", "large"])
def test_what_may_not_be_plain_memory_is_left_to_a_worker(
    obstacle: str, mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link of the file's own name is replaced either way."""
    root, outside = tmp_path / "shared", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    target, size = root / "below/file", 1
    if obstacle == "link above":
        (root / "below").symlink_to(outside)
    elif obstacle in ("link", "directory"):
        (root / "below").mkdir()
        (root / "below/file").symlink_to(outside / "x") if obstacle == "link" else (root / "below/file").mkdir()
    elif obstacle == "large":
        target, size = root / "file", copyfile.DIRECT_MAX + 1
    works: list[str] = []

    async def note(work: Callable[[], bytes | None], name: str) -> bytes:
        works.append(name)
        return await run_here(work, name)

    monkeypatch.setattr(copyfile, "run_in_worker", note)
    loop.run(FileCopies(str(root), str(tmp_path)).copy(part(target, bytes(size), 0, size)))
    assert works == ([] if obstacle == "link" else [f"copy {target}"])
    assert list(outside.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing(mounts: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, data: bytes, position: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StepFailed, match="No space left"):
        loop.run(FileCopies(str(tmp_path / "root"), str(tmp_path)).copy(part(tmp_path / "root/file", b"x", 0, 1)))
    assert list((tmp_path / "root").iterdir()) == []


def superblock(version: int = 1, block: int = 4096, blocks: int = 3, salt: bytes = b"\1\2", algorithm: bytes = b"sha256") -> bytes:
    return struct.pack("<8sII16s32sIIQH6x256s168x", b"verity\0\0", version, 1, b"", algorithm, block, block, blocks, len(salt), salt)


def options(**given: str) -> dict[str, str]:
    words = {"roothash": HASH, "hashoffset": "8192", **{name.replace("_", "-"): value for name, value in given.items()}}
    return {verity.ENABLED: "true", **{verity.PREFIX + name: value for name, value in words.items()}}


def opened(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, **given: str) -> tuple[int, list[str]]:
    """Open a disk with `content` at its hash offset; returns the sectors and the words of the device's table."""
    node = tmp_path / "disk"
    node.write_bytes(bytes(8192) + content)
    tables: list[tuple[int, list[str]]] = []

    def create(name: str, sectors: int, target: str, table: str) -> str:
        tables.append((sectors, table.split()))
        return f"/dev/{name}"

    monkeypatch.setattr(dm, "create", create)
    parsed = verity.parse(options(**given))
    assert parsed is not None
    assert verity.open_verified(str(node), parsed, "name") == "/dev/name"
    return tables[0]


def test_the_layout_is_that_of_the_superblock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sectors, words = opened(tmp_path, superblock(), monkeypatch)
    assert (sectors, words[0], words[3:]) == (24, "1", ["4096", "4096", "3", "3", "sha256", HASH, "0102"])


def test_the_layout_is_that_of_the_options_without_a_superblock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sectors, words = opened(tmp_path, b"", monkeypatch, no_superblock="true", blocksize="1024", hashtype="0")
    assert (sectors, words[0], words[3:]) == (16, "0", ["1024", "4096", "8", "2", "sha256", HASH, "-"])


@pytest.mark.parametrize(
    ("content", "given", "why"),
    [
        (b"", {}, "no superblock"),
        (superblock(version=2), {}, "cannot be used"),
        (superblock(block=3), {}, "cannot be used"),
        (superblock(algorithm=b"md5"), {}, "cannot be used"),
        (superblock(), {"salt": "ff"}, "salt is not the superblock's"),
        (b"", {"no_superblock": "true", "hashoffset": "100"}, "no multiple of 4096"),
        (b"", {"roothash": "ab"}, "not 64 hexadecimal digits"),
        (b"", {"salt": "x"}, "hexadecimal"),
        (b"", {"hashoffset": "-1"}, "not a number"),
        (b"", {"blocksize": "100"}, "not one of"),
        (b"", {"algorithm": "md5"}, "sha256 or sha512"),
        (b"", {"nonesuch": "1"}, "is unknown"),
    ],
)
def test_layouts_that_are_refused(content: bytes, given: dict[str, str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match=why) as caught:
        opened(tmp_path, content, monkeypatch, **given)
    assert caught.value.field == "storage.options"


def test_options_of_dm_verity_need_its_switch() -> None:
    assert verity.parse({}) is None
    with pytest.raises(Refused, match="without"):
        verity.parse({f"{verity.PREFIX}salt": "00"})


def program(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "program").chmod(0o755)
    monkeypatch.setattr(guest_program, "FOLDERS", (str(tmp_path),))


def test_a_program_of_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, 'echo "$1"; cat', monkeypatch)
    assert loop.run(guest_program.run_program("program", ["argument"], b"input", field="f")) == b"argument\ninput"
    with pytest.raises(Refused, match="has no nonesuch"):
        loop.run(guest_program.run_program("nonesuch", [], field="f"))
    program(tmp_path, "echo reason >&2; exit 3", monkeypatch)
    with pytest.raises(StepFailed, match="status 3: reason"):
        loop.run(guest_program.run_program("program", [], field="f"))
    monkeypatch.setattr(guest_program, "MAX_OUTPUT", 3)
    program(tmp_path, "echo long", monkeypatch)
    with pytest.raises(Refused, match="more than 3 bytes"):
        loop.run(guest_program.run_program("program", [], field="f"))


def test_a_program_whose_second_file_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is closed."""
    program(tmp_path, "cat", monkeypatch)
    create = os.memfd_create

    def memfd_create(name: str, *flags: int) -> int:
        if name == "stdout":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return create(name, *flags)

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    before = open_descriptors()
    with pytest.raises(OSError, match="Too many open files"):
        loop.run(guest_program.run_program("program", [], field="f"))
    assert open_descriptors() == before


def test_a_program_ends_with_the_call_that_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would go on to format a disk that the next call formats too."""
    program(tmp_path, f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 1000", monkeypatch)
    noted = tmp_path / "pid"

    async def main() -> int:
        call = loop.spawn(guest_program.run_program("program", [], field="f"), name="call")
        with loop.timeout(DEADLINE):
            while not noted.exists():
                await loop.sleep(0.01)
        pid = int(noted.read_text())
        assert os.path.exists(f"/proc/{pid}")
        await call.stop()
        return pid

    pid = loop.run(main())
    eventually(lambda: not running(pid), "the program goes on")


def running(pid: int) -> bool:
    """Whether a process has not ended. Its status may never be fetched, if nobody adopts it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
