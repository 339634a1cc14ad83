"""What a container asks of the kernel that only the machine's administrator may: each call answers an error."""

import pytest

from tests.escape.documents import EXEC, IDENTITIES, ROOT, USERNS, unfiltered
from tests.escape.ground import Ground
from tests.escape.seen import Seen

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

everyone = pytest.mark.parametrize("who", IDENTITIES)
DENIED = frozenset(("EPERM", "EACCES", "ENOSYS"))
HARMLESS = frozenset(("modify_ldt",))
"""Part of ordinary programs, where the kernel has it."""
FAMILIES = {"AF_ALG": 38, "AF_VSOCK": 40}


def answers(seen: Seen, *attempts: str) -> set[str]:
    """All answers of some kinds of attempt, none of which may be without one."""
    return set().union(*[seen.of(attempt).values() for attempt in attempts])


@pytest.mark.escape("E51")
@everyone
def test_calls_for_administrators_are_denied(ground: Ground, who: str) -> None:
    called = ground.attack(who, "calls").of("call")
    assert len(called) > 30
    assert {name for name, answer in called.items() if answer not in DENIED} <= HARMLESS


@pytest.mark.escape("E51")
def test_calls_are_denied_by_capabilities_alone(ground: Ground) -> None:
    """Without the filter: what the kernel itself asks for. Modules and kexec may be missing from it altogether."""
    seen = ground.attack(ROOT, "calls", change=unfiltered)
    called = seen.of("call")
    for name in ("mount", "umount2", "reboot", "swapon", "init_module", "kexec_load", "clock_settime", "iopl"):
        assert called[name] in DENIED, name


@pytest.mark.escape("E52")
@everyone
def test_the_clock_cannot_be_set(ground: Ground, who: str) -> None:
    called = ground.attack(who, "calls").of("call")
    assert {called[name] for name in ("clock_settime", "settimeofday", "adjtimex")} == {"EPERM"}


@pytest.mark.escape("E52")
def test_the_clock_cannot_be_set_by_root_of_a_user_namespace(ground: Ground) -> None:
    """Not even with every capability there: the clock is the machine's."""
    called = ground.attack(USERNS, "calls", change=ground.all_capabilities).of("call")
    assert {called[name] for name in ("clock_settime", "settimeofday", "adjtimex")} == {"EPERM"}


@pytest.mark.escape("E32")
@everyone
def test_no_namespace_is_made_or_joined(ground: Ground, who: str) -> None:
    seen = ground.attack(who, "namespaces")
    assert answers(seen, "unshare", "clone", "setns") <= {"EPERM", "ENOENT", "EINVAL"}
    assert {seen.of(attempt)["user"] for attempt in ("unshare", "clone", "setns")} == {"EPERM"}
    assert seen.of("clone3") == {"user": "ENOSYS"}


@pytest.mark.escape("E31", "E30")
@everyone
def test_socket_families_are_denied(ground: Ground, who: str) -> None:
    seen = ground.attack(who, "sockets", *map(str, FAMILIES.values()))
    assert answers(seen, "socket") == {"EPERM"}


@pytest.mark.escape("E33")
@everyone
def test_no_file_is_opened_by_its_handle(ground: Ground, who: str) -> None:
    assert ground.attack(who, "handles").of("open_by_handle_at") == {"inode 2": "EPERM"}


@pytest.mark.escape("E33")
@pytest.mark.parametrize("who", [ROOT, EXEC, USERNS])
def test_no_file_is_opened_by_its_handle_without_a_filter(ground: Ground, who: str) -> None:
    """CAP_DAC_READ_SEARCH is not in the default set. (A user namespace may where its own mount permits; ESTALE finds nothing.)"""
    assert ground.attack(who, "handles", change=unfiltered).of("open_by_handle_at")["inode 2"] in ("EPERM", "ESTALE")


@pytest.mark.escape("E59")
@everyone
def test_other_abis_are_filtered_alike(ground: Ground, who: str) -> None:
    """A kernel without 32-bit calls ends the process that tries one (SIGSEGV)."""
    seen = ground.attack(who, "abis")
    assert answers(seen, "x32") <= {"EPERM", "ENOSYS"}
    if killed := seen.values("int 0x80 killed"):
        assert (len(killed), set(killed.values())) == (5, {"11"})
        assert seen.all("int 0x80") == []
    else:
        assert answers(seen, "int 0x80") <= {"EPERM", "ENOSYS"}


@pytest.mark.escape("E60")
@everyone
def test_a_further_filter_only_adds(ground: Ground, who: str) -> None:
    seen = ground.attack(who, "filters", "+", "fds")
    assert seen.of("SECCOMP_GET_ACTION_AVAIL") == {"allow": "ok"}
    assert seen.of("PR_SET_SECCOMP") == {"allow everything": "ok", "none": "EINVAL"}
    assert seen.of("call") == {"mount": "EPERM", "keyctl": "EPERM"}
    assert sorted(seen.of("descriptor")) == ["0", "1", "2", "3"]


@pytest.mark.escape("E18")
@everyone
def test_there_is_no_release_agent(ground: Ground, who: str) -> None:
    seen = ground.attack(who, "release-agent")
    assert answers(seen, "mount cgroup", "mount cgroup rdma") == {"EPERM"}
    assert answers(seen, "release_agent") <= {"ENOENT", "EACCES"}
    assert seen.of("unshare") == {"in new namespaces": "EPERM"}


@pytest.mark.escape("E18")
def test_there_is_no_release_agent_in_a_user_namespace_without_a_filter(ground: Ground) -> None:
    """The way of CVE-2022-0492. A machine that still has version 1 lets its groups be mounted there, but not this file be written."""
    seen = ground.attack(ROOT, "release-agent", change=unfiltered)
    assert answers(seen, "release_agent") <= {"ENOENT", "EACCES", "EPERM"}
    if ground.slow:
        assert answers(seen, "mount cgroup", "mount cgroup rdma") <= {"EPERM", "EINVAL", "ENODEV"}
