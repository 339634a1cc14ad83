"""Programs of another architecture: which handler of binfmt_misc serves, and what is said where none can be had."""

import os
from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest import foreign
from innkeeper.guest.foreign import MACHINES, has_handler

ARM = MACHINES["aarch64"]
ENTRY = f"enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\nmagic {ARM.magic}\nmask {ARM.mask}\n"


@pytest.mark.parametrize(
    ("entry", "serves"),
    [
        (ENTRY, True),
        (ENTRY.replace("enabled", "disabled"), False),
        (ENTRY.replace("POCF", "POC"), False),  # its interpreter is looked for in the other root
        (ENTRY.replace("b700", "f300"), False),
    ],
)
def test_a_handler_of_the_host_serves_if_it_works_in_other_roots(tmp_path: Path, entry: str, serves: bool) -> None:
    for name in ("register", "status"):
        (tmp_path / name).write_text("")
    (tmp_path / "qemu-aarch64").write_text(entry)
    assert has_handler(ARM, tmp_path) is serves


def test_a_host_without_binfmt_misc_has_none(tmp_path: Path) -> None:
    assert not has_handler(ARM, tmp_path / "binfmt_misc")


def test_a_program_of_the_machine_begins_with_the_magic() -> None:
    """The fields of an ELF header that it names: 64 bit, little endian, e_machine 183 (elf.h, EM_AARCH64)."""
    magic, mask = bytes.fromhex(ARM.magic), bytes.fromhex(ARM.mask)
    shared = b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + (183).to_bytes(2, "little")
    assert len(magic) == len(mask) == len(shared)
    assert bytes(a & b for a, b in zip(shared, mask, strict=True)) == bytes(a & b for a, b in zip(magic, mask, strict=True))


def test_an_ordinary_user_needs_the_hosts_handler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(foreign, "has_handler", lambda machine: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InnkeeperError, match="only root can use one of its own") as caught:
        foreign.find("aarch64")
    assert "install qemu-user-static" in str(caught.value.hint)


def test_a_kernel_that_has_no_private_list_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before Linux 6.7 a user namespace cannot mount it. A program in the place of ours says so here, as ours does."""
    refusing = tmp_path / "refusing.py"
    refusing.write_text("import sys\nsys.exit('mount a binfmt_misc of its own (Linux 6.7 and later): Operation not permitted')\n")
    monkeypatch.setattr(foreign, "has_handler", lambda machine: False)
    monkeypatch.setattr(foreign, "PROGRAM", refusing)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(programs, "require", lambda name: Path("/usr/bin") / name)
    with pytest.raises(InnkeeperError, match=r"cannot be run here: mount a binfmt_misc of its own \(Linux 6\.7"):
        foreign.find("aarch64")
