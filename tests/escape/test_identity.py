"""Who a program is: the ids, groups and capabilities of the specification, and no way to more."""

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from agent.container.spec.document import parse_spec
from agent.errors import Refused
from innkeeper.client import RpcError
from innkeeper.wire.passwd import AccountError, resolve_user
from tests.escape.documents import EXEC, IDENTITIES, PROGRAM, ROOT, USER
from tests.escape.target import Target

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

everyone = pytest.mark.parametrize("who", IDENTITIES)
DEFAULT = 0xA80425FB
GRANTED = 1 << 13 | 1 << 0  # CAP_NET_RAW, CAP_CHOWN
PRIVILEGED = ("/setuid", "/setgid", "/capable", "/granted")
SETS = ("inheritable", "permitted", "effective", "bounding", "ambient")


def sets(report: Any) -> dict[str, int]:
    """The five sets as masks."""
    values = report.values("identity")
    return {name: int(values[name], 16) for name in SETS}


@pytest.mark.escape("E24")
@everyone
def test_nothing_is_inheritable_or_ambient(target: Target, who: str) -> None:
    held = 0 if who == USER else DEFAULT
    expected = {"inheritable": 0, "permitted": held, "effective": held, "bounding": DEFAULT, "ambient": 0}
    assert sets(target.attack(who, "identity")) == expected


@pytest.mark.escape("E24")
def test_exec_gets_no_more_than_its_caller_asks_for(target: Target) -> None:
    """Each set as it is listed, also beyond the container's: nothing is inheritable or ambient that is not listed there."""
    names, mask = ["CAP_SYS_ADMIN", "CAP_CHOWN"], 1 << 21 | 1
    with target.running(target.document("hold")) as id:
        listed = ("bounding", "effective", "permitted")
        expected = {name: mask if name in listed else 0 for name in SETS}
        assert sets(target.exec(id, "identity", capabilities=dict.fromkeys(listed, names))) == expected
        assert sets(target.exec(id, "identity", capabilities={})) == dict.fromkeys(SETS, 0)


def privileged_copies(root: Path) -> None:
    """The payload as a set-user-ID program, with every capability in its file, and with two of the default set."""
    program = (root / PROGRAM.strip("/")).read_bytes()
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2755), ("capable", 0o755), ("granted", 0o755)):
        (root / name).write_bytes(program)
        (root / name).chmod(mode)
    for name, mask in (("capable", 0xFFFFFFFF), ("granted", GRANTED)):
        os.setxattr(root / name, "security.capability", struct.pack("<IIIII", 0x02000001, mask, 0, 0, 0))


@pytest.mark.escape("E23")
@pytest.mark.parametrize("program", PRIVILEGED)
def test_no_program_gets_more_than_the_bounding_set(target: Target, program: str) -> None:
    root = target.make_root(f"privileged{program.replace('/', '-')}")
    privileged_copies(root)
    doc = target.document("run", program, "identity", who=USER, root=root)
    doc["process"]["noNewPrivileges"] = False
    report = target.attempt(doc)
    if isinstance(report, RpcError):
        raise report
    if not report.all("identity"):  # all of a file's capabilities, or none of it: execve(2) says EPERM
        assert report.of("execve") == {program: "EPERM"}
        return
    found = sets(report)
    assert (found["permitted"] | found["effective"] | found["bounding"]) & ~DEFAULT == 0
    assert (found["inheritable"], found["ambient"]) == (0, 0)
    if program == "/setuid":
        assert report.values("identity")["uid"].split()[1] == "0", "the program is not what the test thinks"
    if program == "/granted" and not target.slow:  # the guest's share does not carry them
        assert found["permitted"] == GRANTED


@pytest.mark.escape("E25")
@pytest.mark.parametrize("who", [USER, EXEC])
@pytest.mark.parametrize("program", PRIVILEGED)
def test_no_new_privileges_means_none(target: Target, who: str, program: str) -> None:
    root = target.make_root(f"no-new{program.replace('/', '-')}-{who}")
    privileged_copies(root)
    args = ("run", program, "identity")
    if who == EXEC:
        with target.running(target.document("hold", root=root)) as id:
            report = target.exec(id, *args, user={"uid": 1000, "gid": 1000}, capabilities={}, noNewPrivileges=False)
    else:
        report = target.run(target.document(*args, who=USER, root=root))
    if not report.all("identity"):  # all of what a file grants, or nothing: a smaller bounding set makes execve(2) fail
        assert report.of("execve") == {program: "EPERM"}
        return
    values = report.values("identity")
    assert (values["no_new_privs"], values["uid"], values["gid"]) == ("1", "1000 1000 1000", "1000 1000 1000")
    assert (int(values["permitted"], 16), int(values["effective"], 16)) == (0, 0)


@pytest.mark.escape("E42")
@pytest.mark.parametrize("groups", [[], [5, 29], [1000], [5, 5]], ids=str)
@pytest.mark.parametrize("who", [ROOT, USER, EXEC])
def test_groups_are_exactly_those_listed(target: Target, who: str, groups: list[int]) -> None:
    root = target.plain
    user = {"uid": 1000, "gid": 1000, "additionalGids": groups}
    if who == EXEC:
        with target.running(target.document("hold", root=root)) as id:
            report = target.exec(id, "identity", user=user)
    else:
        report = target.attack(who, "identity", change=lambda doc: doc["process"].update(user=user))
    assert sorted(report.values("identity")["groups"].split()) == sorted(map(str, groups))


@pytest.mark.escape("E43")
@pytest.mark.parametrize("id", [0, 1, 65534, 1 << 31, (1 << 32) - 2])
def test_an_id_is_the_number_that_is_given(target: Target, id: int) -> None:
    report = target.attack(ROOT, "identity", change=lambda doc: doc["process"].update(user={"uid": id, "gid": id}))
    assert (report.values("identity")["uid"], report.values("identity")["gid"]) == (f"{id} {id} {id}",) * 2


@pytest.mark.escape("E43")
@pytest.mark.parametrize("key", ["uid", "gid"])
def test_the_id_that_means_no_change_is_refused(target: Target, key: str) -> None:
    """setresuid(-1) leaves root as it is."""
    with pytest.raises(RpcError, match=rf"process.user.{key}"):
        target.attack(ROOT, "identity", change=lambda doc: doc["process"]["user"].update({key: (1 << 32) - 1}))


@pytest.mark.escape("E43")
@pytest.mark.parametrize("value", [-1, 1 << 32, "1", "0x0", "root", 1.0, True, [1], 10**40], ids=repr)
@pytest.mark.parametrize("key", ["uid", "gid", "additionalGids", "umask"])
def test_an_id_that_is_no_number_in_range_is_refused(key: str, value: object) -> None:
    user: dict[str, object] = {"uid": 0, "gid": 0, key: [value] if key == "additionalGids" else value}
    doc = {
        "ociVersion": "1.2.0",
        "root": {"path": "/r"},
        "process": {"args": ["x"], "user": user},
        "linux": {"namespaces": [{"type": "mount"}]},
    }
    with pytest.raises(Refused, match=rf"process\.user\.{key}"):
        parse_spec(doc)


@pytest.mark.escape("E43")
def test_a_name_is_refused_where_numbers_are_due(target: Target) -> None:
    with pytest.raises(RpcError, match="username"):
        target.attack(ROOT, "identity", change=lambda doc: doc["process"]["user"].update(username="root"))


@pytest.mark.escape("E43")
def test_a_number_is_a_number_whatever_an_account_is_called() -> None:
    """An image may name an account 0, or 1000, and give it the id of another."""
    passwd = b"0:x:4242:4242::/:/bin/sh\n1000:x:0:0::/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n"
    assert (resolve_user("0", passwd, None).uid, resolve_user("1000", passwd, None).uid) == (0, 1000)
    for text in ("-1", "4294967295", "4294967296", "0x0", "+0", " 0", "0 ", ":"):
        with pytest.raises(AccountError):
            resolve_user(text, passwd, None)
