"""Seccomp profiles made flat: the default one, and docker-style files."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.linux.capability import NAMES
from innkeeper.errors import InnkeeperError
from innkeeper.guest.kernel import VERSION
from innkeeper.image.defaults import CAPABILITIES
from innkeeper.image.seccomp import GUEST_KERNEL, load_profile
from innkeeper.image.seccomp_default import read_profile


def rules(profile: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


def load(caps: Any = CAPABILITIES, **more: Any) -> dict[str, Any]:
    more.setdefault("machine", "x86_64")
    return load_profile(None, caps, **more)


def test_default_profile_is_flat() -> None:
    profile = load()
    assert set(profile) == {"defaultAction", "architectures", "syscalls"}
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert {key for rule in profile["syscalls"] for key in rule} == {"names", "action", "args", "errnoRet"}


def test_capabilities_open_their_calls() -> None:
    assert rules(load(), "mount") == []
    assert rules(load(), "bpf") == []
    assert rules(load(), "chroot")[0]["action"] == "SCMP_ACT_ALLOW"
    assert rules(load(()), "chroot") == []
    assert rules(load((*CAPABILITIES, "CAP_SYS_ADMIN")), "mount") != []
    assert rules(load(), "clone3") == [{"names": ["clone3", "socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    assert [rule["action"] for rule in rules(load((*CAPABILITIES, "CAP_SYS_ADMIN")), "clone3")] == ["SCMP_ACT_ALLOW"]
    assert rules(load(), "clone")[0]["args"][0]["op"] == "SCMP_CMP_MASKED_EQ"


def test_kernel_and_architecture() -> None:
    assert rules(load(kernel=(4, 7)), "ptrace") == []
    assert rules(load(kernel=(4, 8)), "ptrace") != []
    assert rules(load(), "arch_prctl") != []
    assert rules(load(machine="aarch64"), "arch_prctl") == []
    assert load(machine="aarch64")["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


def test_kernel_is_the_guests() -> None:
    assert ".".join(map(str, GUEST_KERNEL)) == VERSION


def test_a_machine_without_a_profile_is_refused() -> None:
    with pytest.raises(InnkeeperError, match="riscv64"):
        load(machine="riscv64")


def test_groups_are_written_as_the_file_says() -> None:
    groups = read_profile().groups
    assert len({group.topic for group in groups}) == len(groups)
    for group in groups:
        assert group.reason and group.calls
        assert list(group.calls) == sorted(set(group.calls)), group.topic
        assert group.answer in ("allow", "EPERM", "ENOSYS")
        assert {*group.capabilities, *filter(None, [group.unless])} <= set(NAMES)


@pytest.mark.parametrize("bounding", [(), CAPABILITIES, ("CAP_SYS_ADMIN",), NAMES], ids=["none", "default", "admin", "all"])
def test_no_call_has_two_answers(bounding: tuple[str, ...]) -> None:
    """Which of them libseccomp would take depends on the order."""
    answers: dict[str, set[str]] = {}
    for rule in load(bounding)["syscalls"]:
        for name in rule["names"]:
            answers.setdefault(name, set()).add(rule["action"])
    assert [name for name, actions in answers.items() if len(actions) > 1] == []


def allows_family(family: int) -> bool:
    """What the rules for socket(2) say about its first argument."""
    answers = {"SCMP_CMP_LT": lambda value: family < value, "SCMP_CMP_EQ": lambda value: family == value}
    return any(answers[rule["args"][0]["op"]](rule["args"][0]["value"]) for rule in rules(load(), "socket"))


def test_socket_families() -> None:
    denied = [family for family in range(64) if not allows_family(family)]
    assert denied == [38, 40, *range(46, 64)]
    assert not allows_family(40 | 1 << 32)  # the kernel looks at the lower half alone
    assert not allows_family(38 | 1 << 63)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ("{}", "no defaultAction"),
        ({"defaultAction": "A", "syscals": []}, "unknown key syscals"),
        ({"defaultAction": "A", "syscalls": [{"names": ["read"], "action": "A", "includes": {"kernel": 1}}]}, "unknown key kernel"),
        ({"defaultAction": "A", "syscalls": [{"action": "A"}]}, "names or action missing"),
        ({"defaultAction": "A", "syscalls": [{"name": "a", "names": ["b"], "action": "A"}]}, "both name and names"),
        ({"defaultAction": "A", "architectures": ["X"], "archMap": [{}]}, "both architectures"),
        ({"defaultAction": "A", "syscalls": [{"names": ["a"], "action": "A", "includes": {"minKernel": "new"}}]}, "not a version"),
    ],
)
def test_bad_profile(tmp_path: Path, document: object, why: str) -> None:
    file = tmp_path / "p.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(InnkeeperError, match=why) as raised:
        load_profile(file, ())
    assert str(file) in str(raised.value)


def test_own_profile(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(
        json.dumps(
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_ERRNO", "args": [], "errnoRet": 1}]}
        )
    )
    assert load_profile(file, ()) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    with pytest.raises(InnkeeperError, match="No such file"):
        load_profile(tmp_path / "none", ())
