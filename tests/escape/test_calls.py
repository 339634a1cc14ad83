"""What a container asks of the kernel that only the machine's administrator may: each call answers an error."""

import pytest

from tests.escape.documents import EXEC, IDENTITIES, ROOT, USERNS, unfiltered
from tests.escape.report import Report
from tests.escape.target import Target

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

everyone = pytest.mark.parametrize("who", IDENTITIES)
DENIED = frozenset(("EPERM", "EACCES", "ENOSYS"))
HARMLESS = frozenset(("modify_ldt",))
"""Part of ordinary programs, where the kernel has it."""
FAMILIES = {"AF_ALG": 38, "AF_VSOCK": 40}


def answers(report: Report, *attempts: str) -> set[str]:
    """All answers of some kinds of attempt, none of which may be without one."""
    return set().union(*[report.of(attempt).values() for attempt in attempts])


@pytest.mark.escape("E51")
@everyone
def test_calls_for_administrators_are_denied(target: Target, who: str) -> None:
    called = target.attack(who, "calls").of("call")
    assert len(called) > 30
    assert {name for name, answer in called.items() if answer not in DENIED} <= HARMLESS


@pytest.mark.escape("E51")
def test_calls_are_denied_by_capabilities_alone(target: Target) -> None:
    """Without the filter: what the kernel itself asks for. Modules and kexec may be missing from it altogether."""
    report = target.attack(ROOT, "calls", change=unfiltered)
    called = report.of("call")
    for name in ("mount", "umount2", "reboot", "swapon", "init_module", "kexec_load", "clock_settime", "iopl"):
        assert called[name] in DENIED, name


@pytest.mark.escape("E52")
@everyone
def test_the_clock_cannot_be_set(target: Target, who: str) -> None:
    called = target.attack(who, "calls").of("call")
    assert {called[name] for name in ("clock_settime", "settimeofday", "adjtimex")} == {"EPERM"}


@pytest.mark.escape("E52")
def test_the_clock_cannot_be_set_by_root_of_a_user_namespace(target: Target) -> None:
    """Not even with every capability there: the clock is the machine's."""
    called = target.attack(USERNS, "calls", change=target.all_capabilities).of("call")
    assert {called[name] for name in ("clock_settime", "settimeofday", "adjtimex")} == {"EPERM"}


@pytest.mark.escape("E32")
@everyone
def test_no_namespace_is_made_or_joined(target: Target, who: str) -> None:
    report = target.attack(who, "namespaces")
    assert answers(report, "unshare", "clone", "setns") <= {"EPERM", "ENOENT", "EINVAL"}
    assert {report.of(attempt)["user"] for attempt in ("unshare", "clone", "setns")} == {"EPERM"}
    assert report.of("clone3") == {"user": "ENOSYS"}


@pytest.mark.escape("E31", "E30")
@everyone
def test_socket_families_are_denied(target: Target, who: str) -> None:
    report = target.attack(who, "sockets", *map(str, FAMILIES.values()))
    assert answers(report, "socket") == {"EPERM"}


@pytest.mark.escape("E33")
@everyone
def test_no_file_is_opened_by_its_handle(target: Target, who: str) -> None:
    assert target.attack(who, "handles").of("open_by_handle_at") == {"inode 2": "EPERM"}


@pytest.mark.escape("E33")
@pytest.mark.parametrize("who", [ROOT, EXEC, USERNS])
def test_no_file_is_opened_by_its_handle_without_a_filter(target: Target, who: str) -> None:
    """CAP_DAC_READ_SEARCH is not in the default set. (A user namespace may where its own mount permits; ESTALE finds nothing.)"""
    assert target.attack(who, "handles", change=unfiltered).of("open_by_handle_at")["inode 2"] in ("EPERM", "ESTALE")


@pytest.mark.escape("E59")
@everyone
def test_other_abis_are_filtered_alike(target: Target, who: str) -> None:
    """A kernel without 32-bit calls ends the process that tries one (SIGSEGV)."""
    report = target.attack(who, "abis")
    assert answers(report, "x32") <= {"EPERM", "ENOSYS"}
    if killed := report.values("int 0x80 killed"):
        assert (len(killed), set(killed.values())) == (5, {"11"})
        assert report.all("int 0x80") == []
    else:
        assert answers(report, "int 0x80") <= {"EPERM", "ENOSYS"}


@pytest.mark.escape("E60")
@everyone
def test_a_further_filter_only_adds(target: Target, who: str) -> None:
    report = target.attack(who, "filters", "+", "fds")
    assert report.of("SECCOMP_GET_ACTION_AVAIL") == {"allow": "ok"}
    assert report.of("PR_SET_SECCOMP") == {"allow everything": "ok", "none": "EINVAL"}
    assert report.of("call") == {"mount": "EPERM", "keyctl": "EPERM"}
    assert sorted(report.of("descriptor")) == ["0", "1", "2", "3"]


@pytest.mark.escape("E18")
@everyone
def test_there_is_no_release_agent(target: Target, who: str) -> None:
    report = target.attack(who, "release-agent")
    assert answers(report, "mount cgroup", "mount cgroup rdma") == {"EPERM"}
    assert answers(report, "release_agent") <= {"ENOENT", "EACCES"}
    assert report.of("unshare") == {"in new namespaces": "EPERM"}


@pytest.mark.escape("E18")
def test_there_is_no_release_agent_in_a_user_namespace_without_a_filter(target: Target) -> None:
    """The way of CVE-2022-0492. A machine that still has version 1 lets its groups be mounted there, but not this file be written."""
    report = target.attack(ROOT, "release-agent", change=unfiltered)
    assert answers(report, "release_agent") <= {"ENOENT", "EACCES", "EPERM"}
    if target.slow:
        assert answers(report, "mount cgroup", "mount cgroup rdma") <= {"EPERM", "EINVAL", "ENODEV"}
