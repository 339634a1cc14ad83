"""Who a process is: `USER[:GROUP]` by name or number, resolved from the container's own account files.

Used on the host for the image's user before anything boots, and in the guest for `exec`, whose user the container may have made since.
As docker (moby/sys/user GetExecUser): a number is always a number, also when an account has it for its name. The files are bytes from an
untrusted image: bounded when read, parsed here, never handed to the host's name services.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ID_MAX = 2**32 - 2


class AccountError(ValueError):
    """A user or group that the account files do not have, or a number that is none. Of both sides, so no InnkeeperError.

    `hint` is the next step, if there is one.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class User:
    """`groups` are all of the process's, `gid` the first of them."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class _Account:
    name: str
    uid: int
    gid: int


def resolve_user(text: str, passwd: bytes | None, group: bytes | None, more: Sequence[str] = ()) -> User:
    """Resolve `text` ("" is root, "app:" is "app"); `more` are additional groups by name or number.

    Raises AccountError when a name is not in the files or a number is out of range.
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
    """Yield the fields of each line that has at least `count`: as with docker what is missing at a line's end is empty."""
    for line in (data or b"").decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= count and fields[0] and not fields[0].startswith("#"):
            yield fields


def _ids(fields: Sequence[str]) -> list[int] | None:
    """The numbers, or None when one is not: such a line is no account."""
    if all(field.isascii() and field.isdigit() and len(field) < 11 for field in fields):
        values = [int(field) for field in fields]
        if max(values) <= ID_MAX:
            return values
    return None
