"""Users of a container: names from its own files, numbers exactly as they are written."""

import pytest

from innkeeper.wire.passwd import AccountError, User, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# comment:x:1:1::/:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
0:x:77:77:numeric name:/evil:/bin/sh
12:x:13:13::/twelve:/bin/sh
broken:x:abc:0::/:/bin/sh
huge:x:99999999999:0::/:/bin/sh
short:x:5
"""
GROUP = b"root:x:0:\napps:x:1001:\nwheel:x:10:root,app\naudio:x:29:app\n55:x:66:\nbare:x:67\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(0, 0, (0, 10))),
        ("0", User(0, 0, (0, 10))),
        (":55", User(0, 55, (55,))),
        ("app", User(1000, 1001, (1001, 10, 29))),
        ("app:", User(1000, 1001, (1001, 10, 29))),
        ("1000", User(1000, 1001, (1001, 10, 29))),
        ("app:wheel", User(1000, 10, (10,))),
        ("app:4294967294", User(1000, 4294967294, (4294967294,))),
        ("app:55", User(1000, 55, (55,))),
        ("app:bare", User(1000, 67, (67,))),
        ("12", User(12, 0, (0,))),
        ("4242:42", User(4242, 42, (42,))),
        ("short", User(5, 0, (0,))),
    ],
)
def test_resolved(text: str, expected: User) -> None:
    assert resolve_user(text, PASSWD, GROUP) == expected


def test_groups_are_added_by_name_and_number() -> None:
    assert resolve_user("app:wheel", PASSWD, GROUP, ["audio", "4242", "10"]) == User(1000, 10, (10, 29, 4242))
    with pytest.raises(AccountError, match="'video' is not in the container's /etc/group"):
        resolve_user("app", PASSWD, GROUP, ["video"])


@pytest.mark.parametrize(
    "text", ["-1", "4294967295", "0x0", "nobody", "broken", "huge", "app:nogroup", "app:-1", ":", "99999999999999999999", "--1", "٣"]
)
def test_refused(text: str) -> None:
    with pytest.raises(AccountError):
        resolve_user(text, PASSWD, GROUP)


def test_image_without_account_files() -> None:
    assert resolve_user("", None, None) == User(0, 0, (0,))
    with pytest.raises(AccountError, match="/etc/passwd"):
        resolve_user("app", None, None)
