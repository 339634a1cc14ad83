"""The parser of /proc/self/mountinfo: octal escapes, optional fields, bytes that are not UTF-8."""

import os
from pathlib import Path

import pytest

from agent.linux import mount_table
from agent.linux.mount_table import MountEntry

LINES = (
    b"36 35 98:0 / /mnt\\0401\\134\\011\\012x rw,noatime master:1 shared:3 - ext3 /dev/my\\040disk rw,errors=continue\n"
    b"37 36 0:44 /sub\\040dir /mnt/\xff rw - fuse.a-b - rw\n"
    b"38 36 0:45 / /mnt rw - tmpfs  rw\n"
    b"39 38 0:46 / /mnt rw - proc proc rw\n"
)


@pytest.fixture(autouse=True)
def _lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(LINES)
    monkeypatch.setattr(mount_table, "MOUNTINFO", str(tmp_path / "mountinfo"))


def test_every_escape_is_decoded_and_an_empty_source_is_kept() -> None:
    assert mount_table.mount_table() == [
        MountEntry(36, "/", "/mnt 1\\\t\nx", "ext3", "/dev/my disk"),
        MountEntry(37, "/sub dir", os.fsdecode(b"/mnt/\xff"), "fuse.a-b", "-"),
        MountEntry(38, "/", "/mnt", "tmpfs", ""),
        MountEntry(39, "/", "/mnt", "proc", "proc"),
    ]


def test_the_topmost_mount_comes_last() -> None:
    assert [entry.id for entry in mount_table.mounts_at("/mnt/")] == [38, 39]
    assert mount_table.mounts_at("/none") == []


def test_a_mount_is_found_by_any_path() -> None:
    assert [entry.id for path in ("/mnt 1\\\t\nx", os.fsdecode(b"/mnt/\xff")) for entry in mount_table.mounts_at(path)] == [36, 37]
