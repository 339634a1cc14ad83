"""Whoever enters a container carries nothing of the agent in: not its descriptors, memory, program, environment or signal masks."""

import hashlib
import os
from contextlib import ExitStack
from typing import Any

import pytest

from innkeeper.client import RpcError
from tests.escape.documents import EXEC, IDENTITIES, PROGRAM, ROOT, USER, USERNS
from tests.escape.target import Target
from tests.escape.target_native import Native

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

everyone = pytest.mark.parametrize("who", IDENTITIES)
STRONG = "root of a user namespace with every capability"
STANDARD = ["0", "1", "2", "3"]
"""The last is the directory being read."""
HIGHEST = 40
ATTEMPTS = 5
"""Times that a joiner is hunted, until one was seen: on a busy host the hunter may get no processor meanwhile."""
UNWRITABLE = frozenset(("EPERM", "EACCES", "EROFS", "ETXTBSY", "ENOENT"))


@pytest.mark.escape("E01")
@pytest.mark.parametrize("who", [ROOT, USERNS, USER, STRONG])
def test_a_joiner_cannot_be_traced_or_read(target: Target, who: str) -> None:
    """While one exec follows the other, a process inside attaches to, and opens all of, every new process that it can see."""
    doc = target.document("hunt-joiners", who=USERNS if who == STRONG else who)
    if who == STRONG:
        target.all_capabilities(doc)
    for _ in range(ATTEMPTS):
        with target.running(doc) as id:
            for _ in range(target.rounds(200)):
                target.exec(id, "status", "Name")
            report = target.finish(id, id)
        assert report.all("foreign") == []
        if int(report.values("denied")["/proc"]) > 0:
            return
    raise AssertionError("no joiner was ever seen")


@pytest.mark.escape("E01", "E54")
def test_a_joiner_cannot_be_read_in_a_shared_pid_namespace(target: Target) -> None:
    """Two containers in one pid namespace, as a pod may ask for: the other's first process is seen, the agent is not."""
    with target.running(target.document("hunt-joiners")) as id:
        pid = next(container.pid for container in target.agent.list_containers() if container.id == id)
        doc = target.document("list", "/proc", "+", "look", "/proc")
        doc["linux"]["namespaces"][0] = {"type": "pid", "path": f"/proc/{pid}/ns/pid"}
        for _ in range(target.rounds(40)):
            second = target.run(doc)
        first = target.finish(id, id)
    processes = [name for name in second.values("list")["/proc"].split() if name.isdigit()]
    assert "1" in processes and len(processes) == 2
    assert first.all("foreign") == []


def working_directories(highest: int) -> list[str]:
    """Paths that lead through descriptors of the process that is being contained."""
    numbers = range(3, highest)
    return [
        *[f"/proc/self/fd/{number}" for number in numbers],
        *[f"/proc/thread-self/fd/{number}" for number in numbers],
        "/leak",
        "/leak/..",
    ]


@pytest.mark.escape("E02")
def test_no_working_directory_leads_out(target: Target) -> None:
    root = target.make_root("leaking-cwd")
    (root / "leak").symlink_to("/proc/self/fd/7")
    doc = target.document("walk-up", "canary", root=root)
    for cwd in working_directories(12 if target.slow else HIGHEST):
        doc["process"]["cwd"] = cwd
        with pytest.raises(RpcError):
            target.run(doc)


@pytest.mark.escape("E02")
def test_no_working_directory_leads_out_in_exec(target: Target) -> None:
    root = target.make_root("leaking-cwd-of-exec")
    (root / "leak").symlink_to("/proc/self/fd/7")
    with target.running(target.document("hold", root=root)) as id:
        for cwd in working_directories(12 if target.slow else HIGHEST):
            with pytest.raises(RpcError):
                target.exec(id, "walk-up", "canary", cwd=cwd)


@pytest.mark.escape("E02")
@everyone
def test_nothing_is_above_the_root(target: Target, who: str) -> None:
    report = target.attack(who, "walk-up", "canary")
    assert report.values("getcwd") == {".": "/"}
    assert report.all("found above") == []


@pytest.mark.escape("E03")
@everyone
@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
def test_only_the_standard_streams_are_open(target: Target, who: str, terminal: bool) -> None:
    if who == EXEC:
        with target.running(target.document("hold")) as id:
            report = target.exec(id, "fds", terminal=terminal)
    else:
        doc = target.document("fds", who=who)
        doc["process"]["terminal"] = terminal
        report = target.run(doc)
    assert sorted(report.of("descriptor")) == STANDARD
    streams = {report.values("descriptor")[number].partition(":")[0] for number in STANDARD[:3]}
    assert streams == ({"/dev/pts/0"} if terminal else {"pipe"})


@pytest.mark.escape("E03")
def test_only_the_standard_streams_are_open_beside_many_containers(target: Target) -> None:
    with ExitStack() as others:
        for _ in range(8 if target.slow else 50):
            id = others.enter_context(target.running(target.document("hold")))
        assert sorted(target.exec(id, "fds").of("descriptor")) == STANDARD
        assert sorted(target.run(target.document("fds")).of("descriptor")) == STANDARD


@pytest.mark.escape("E03")
def test_a_program_that_is_missing_leaves_nothing_open(target: Target) -> None:
    """Error paths too: what they leave in the agent, the fixture counts."""
    doc = target.document("fds")
    doc["process"]["args"] = ["/missing"]
    with target.running(target.document("hold")) as id:
        for _ in range(5):
            with pytest.raises(RpcError, match="missing"):
                target.run(doc)
            with pytest.raises(RpcError, match="missing"):
                target.exec(id, "fds", args=["/missing"])
        assert sorted(target.exec(id, "fds").of("descriptor")) == STANDARD


def interpreters() -> dict[str, bytes]:
    """Programs whose interpreter is whatever executes them: by the first line, and by an ELF header of nothing but PT_INTERP."""
    path = b"/proc/self/exe\0"
    elf = b"\x7fELF\2\1\1" + bytes(9) + b"\3\0\x3e\0\1\0\0\0" + bytes(8) + (64).to_bytes(8, "little") + bytes(8)
    elf += bytes(4) + b"\x40\0\x38\0\1\0\0\0\0\0\0\0"
    where, size = (120).to_bytes(8, "little"), len(path).to_bytes(8, "little")
    elf += b"\3\0\0\0\4\0\0\0" + where * 3 + size * 2 + (1).to_bytes(8, "little") + path
    return {"script": b"#!/proc/self/exe\n", "elf": elf}


@pytest.mark.escape("E04")
@everyone
def test_the_agents_program_is_not_started_by_a_container(target: Target, who: str) -> None:
    for program in ("/proc/self/exe", "/proc/thread-self/exe", "/link"):
        root = target.make_root(f"starts-{program.replace('/', '-')}-{who}")
        (root / "link").symlink_to("/proc/self/exe")
        with pytest.raises(RpcError):
            _run_as(target, who, program, root)


def _run_as(target: Target, who: str, program: str, root: Any) -> Any:
    if who == EXEC:
        with target.running(target.document("hold", root=root)) as id:
            return target.exec(id, args=[program])
    doc = target.document(who=who, root=root)
    doc["process"]["args"] = [program]
    return target.run(doc)


@pytest.mark.escape("E04")
@pytest.mark.parametrize("kind", ["script", "elf"])
def test_the_agents_program_cannot_be_written(target: Target, kind: str) -> None:
    """A process inside holds the program of each joiner, and writes to it as soon as it has ended."""
    root = target.make_root(f"interpreter-{kind}")
    (root / "interpreted").write_bytes(interpreters()[kind])
    (root / "interpreted").chmod(0o755)
    with target.running(target.document("hunt-programs", root=root)) as id:
        for _ in range(target.rounds(80)):
            try:
                target.exec(id, args=["/interpreted"])
            except RpcError as refusal:
                assert not refusal.lost
        report = target.finish(id, id)
    own = {"/interpreted", PROGRAM}
    assert {answer.answer for answer in report.all("write") if answer.on not in own} <= UNWRITABLE


@pytest.mark.escape("E04")
def test_the_program_of_an_agent_outside_a_guest_is_a_sealed_copy(here: Native) -> None:
    """The interpreter of this machine, which runs the agent here, is not what a container could reach."""
    assert "memfd:" in os.readlink(f"/proc/{here.pid}/exe")
    with open(f"/proc/{here.pid}/exe", "rb") as copy, open(os.path.realpath("/proc/self/exe"), "rb") as original:
        assert hashlib.sha256(copy.read()).digest() == hashlib.sha256(original.read()).digest()
    with pytest.raises(OSError, match=r"Text file busy|not permitted"):
        with open(f"/proc/{here.pid}/exe", "r+b", buffering=0) as program:
            program.write(b"\x7f")


@pytest.mark.escape("E55")
@everyone
def test_the_environment_is_the_specifications(target: Target, who: str) -> None:
    given = sorted(answer.value for answer in target.attack(who, "env").all("environment"))
    assert given == (["HOME=/", "PATH=/bin"] if who == USER else ["HOME=/root", "PATH=/bin"])


@pytest.mark.escape("E56")
@everyone
def test_signals_have_their_defaults(target: Target, who: str) -> None:
    masks = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
    report = target.attack(who, "status", *masks).values("status")
    assert {name: int(mask, 16) for name, mask in report.items()} == dict.fromkeys(masks, 0)
