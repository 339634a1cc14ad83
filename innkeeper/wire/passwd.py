"""Resolve `USER[:GROUP]`, by name or number, from the container's own account files.

The host uses it for the image's user before anything boots. The guest uses it for `exec`, because
the container may have created the user since.

The rules are those of docker (moby/sys/user GetExecUser): a number is always an id, even if an
account has that number as its name. The files are bytes of an untrusted image. They are bounded
when read, parsed here, and never passed to the host's name services.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ID_MAX = 2**32 - 2
"""The largest uid or gid.

2**32 - 1 is no id: it means "no change" to chown(2) and setresuid(2).
"""


class AccountError(ValueError):
    """A user or group that is not in the account files, or a number that is not a valid id.

    `hint` is the next step, if there is one. Host and guest both raise it, so it is no
    InnkeeperError.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class User:
    """A resolved user. `groups` are all groups of the process, and `gid` is the first of them."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class _Account:
    name: str
    uid: int
    gid: int


def resolve_user(text: str, passwd: bytes | None, group: bytes | None, more: Sequence[str] = ()) -> User:
    """Resolve `text` to a User. "" is root, and "app:" is the same as "app".

    `passwd` and `group` are the contents of the account files, or None if a file is missing. `more`
    are additional groups by name or number. Raises AccountError if a name is not in the files or a
    number is out of range.
    """
    wanted, colon, wanted_group = text.partition(":")
    if colon and not wanted and not wanted_group:
        raise AccountError(f"user {text!r}: neither a user nor a group")
    wanted = wanted or "0"
    account = _find_account(wanted, passwd)
    if account is None and not _is_number(wanted):
        raise AccountError(f"user {wanted!r} is not in the container's /etc/passwd", hint="use a number, or a user that the image has")
    uid = account.uid if account else _number(wanted)
    gid, groups = (account.gid, _groups_of(account.name, group)) if account else (0, [])
    if wanted_group:
        gid, groups = _find_group(wanted_group, group), []
    return User(uid, gid, tuple(dict.fromkeys([gid, *groups, *[_find_group(name, group) for name in more]])))


def _find_account(wanted: str, passwd: bytes | None) -> _Account | None:
    number = _number(wanted) if _is_number(wanted) else None
    for account in _accounts(passwd):
        if account.uid == number if number is not None else account.name == wanted:
            return account
    return None


def _find_group(wanted: str, group: bytes | None) -> int:
    if _is_number(wanted):
        return _number(wanted)
    for name, gid, _ in _group_entries(group):
        if name == wanted:
            return gid
    raise AccountError(f"group {wanted!r} is not in the container's /etc/group", hint="use a number, or a group that the image has")


def _groups_of(name: str, group: bytes | None) -> list[int]:
    return [gid for _, gid, members in _group_entries(group) if name in members]


def _is_number(text: str) -> bool:
    return re.fullmatch("-?[0-9]+", text) is not None


def _number(text: str) -> int:
    value = int(text) if len(text) < 12 else -1
    if not 0 <= value <= ID_MAX:
        raise AccountError(f"id {text} is not between 0 and {ID_MAX}")
    return value


def _accounts(passwd: bytes | None) -> Iterator[_Account]:
    for fields in _lines(passwd, 3):
        ids = _ids(fields[2:4])
        if ids is not None:
            yield _Account(fields[0], ids[0], ids[1] if len(ids) > 1 else 0)


def _group_entries(group: bytes | None) -> Iterator[tuple[str, int, Sequence[str]]]:
    for fields in _lines(group, 3):
        ids = _ids(fields[2:3])
        if ids is not None:
            yield fields[0], ids[0], fields[3].split(",") if len(fields) > 3 else ()


def _lines(data: bytes | None, count: int) -> Iterator[list[str]]:
    """Yield the fields of each line that has at least `count` of them.

    Missing fields at a line's end count as empty, as with docker.
    """
    for line in (data or b"").decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= count and fields[0] and not fields[0].startswith("#"):
            yield fields


def _ids(fields: Sequence[str]) -> list[int] | None:
    """Return the fields as numbers, or None if one is not a valid id.

    A line with such a field is not an account.
    """
    if all(field.isascii() and field.isdigit() and len(field) < 11 for field in fields):
        values = [int(field) for field in fields]
        if max(values) <= ID_MAX:
            return values
    return None
