"""The mount table of this process, parsed from /proc/self/mountinfo (proc_pid_mountinfo(5))."""

import re
from typing import NamedTuple

MOUNTINFO = "/proc/self/mountinfo"
_OCTAL = re.compile(r"\\([0-7]{3})")
_ESCAPED = re.compile(r"[ \t\n\\#]")


class MountEntry(NamedTuple):
    """One mount. `root` is the directory of its file system that it shows."""

    id: int
    root: str
    mountpoint: str
    filesystem: str
    source: str


def mount_table() -> list[MountEntry]:
    """Return all mounts, in the order of the kernel: of two at one path the topmost comes last.

    Bytes that are not UTF-8 are kept as surrogates (os.fsdecode). Raises OSError.
    """
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return [_parse(line) for line in file]


def mounts_at(path: str) -> list[MountEntry]:
    """Return the mounts at exactly `path`, the topmost last.

    Only their lines are parsed: in an emulated guest the whole table takes some milliseconds.
    """
    wanted = _encoded(path.rstrip("/") or "/")
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return [_parse(line) for line in file if line.split(" ", 5)[4] == wanted]


def _parse(line: str) -> MountEntry:
    """Parse a line. Optional fields, in the middle, end with a dash."""
    fields = line.rstrip("\n").split(" ")
    filesystem, source = fields[fields.index("-", 6) + 1 :][:2]
    return MountEntry(int(fields[0]), _decoded(fields[3]), _decoded(fields[4]), _decoded(filesystem), _decoded(source))


def _encoded(path: str) -> str:
    """Encode a path as the kernel writes it into the table."""
    return _ESCAPED.sub(lambda character: f"\\{ord(character[0]):03o}", path)


def _decoded(field: str) -> str:
    """Decode the octal escapes of a field: the kernel escapes blanks, backslashes and `#`."""
    return _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), field) if "\\" in field else field
