"""Filters at work: what each action does to a program, flags as the kernel has them, and calls that somebody outside answers."""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.container.container import Container
from agent.errors import Refused, StepFailed
from tests.root.container_helpers import Box, Document, execute

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2", "module:pyseccomp")]
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_*: struct seccomp_notif has 80 bytes, struct seccomp_notif_resp 24."""


def with_rule(doc: Document, action: str, *names: str, **fields: Any) -> Document:
    """Everything is allowed but what one rule says of some calls."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": list(names), "action": action}]}
    doc["linux"]["seccomp"] = {**profile, **fields}
    return doc


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("SCMP_ACT_KILL", 128 + 31),
        ("SCMP_ACT_KILL_THREAD", 128 + 31),
        ("SCMP_ACT_KILL_PROCESS", 128 + 31),
        ("SCMP_ACT_TRAP", 128 + 31),
    ],
)
def test_actions_that_end_a_program(box: Box, action: str, status: int) -> None:
    doc = with_rule(box.document("sh", "-c", "mkdir /tmp/x; echo $?"), action, "mkdir", "mkdirat")
    assert box.run(doc).stdout.split() == [str(status)]


@pytest.mark.parametrize("action", ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
def test_actions_that_let_a_call_pass(box: Box, action: str) -> None:
    doc = with_rule(box.document("sh", "-c", "mkdir /dev/shm/x; echo $?"), action, "mkdir", "mkdirat")
    assert box.run(doc).stdout.split() == ["0"]


def test_a_traced_call_without_a_tracer_does_not_exist(box: Box) -> None:
    doc = with_rule(box.document("sh", "-c", "mkdir /dev/shm/x"), "SCMP_ACT_TRACE", "mkdir", "mkdirat")
    assert "Function not implemented" in box.run(doc).stderr


def test_the_default_action_answers_the_rest(box: Box) -> None:
    doc = box.document("sh", "-c", "mkdir /dev/shm/x")
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ALLOW"}]
    doc["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": rules}
    assert box.run(doc).status == 128 + 31  # nothing else is allowed: not even to execute the program


@pytest.mark.parametrize("no_new_privs", [True, False])
@pytest.mark.parametrize("flags", [[], ["SECCOMP_FILTER_FLAG_TSYNC"], ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]])
def test_flags(box: Box, flags: list[str], no_new_privs: bool) -> None:
    doc = with_rule(box.document("grep", "-E", "Seccomp:|Speculation_Store", "/proc/self/status"), "SCMP_ACT_ERRNO", "mkdir", flags=flags)
    doc["process"]["noNewPrivileges"] = no_new_privs
    assert box.run(doc).stdout.split()[:2] == ["Seccomp:", "2"]


def test_a_flag_that_the_kernel_lacks_is_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.linux.seccomp._flags", {2: False})
    with pytest.raises(Refused, match=r"linux.seccomp.flags\[0\]: this kernel does not know SECCOMP_FILTER_FLAG_LOG"):
        box.run(with_rule(box.document("true"), "SCMP_ACT_ERRNO", "mkdir", flags=["SECCOMP_FILTER_FLAG_LOG"]))


def test_an_action_that_the_kernel_lacks_is_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.linux.seccomp._actions", {0x7FFC0000: False})
    with pytest.raises(Refused, match=r"linux.seccomp.syscalls\[0\].action: this kernel does not know SCMP_ACT_LOG"):
        box.run(with_rule(box.document("true"), "SCMP_ACT_LOG", "mkdir"))


def test_unknown_calls_are_warned_of_where_something_is_lost(box: Box) -> None:
    async def use(container: Container) -> list[str]:
        return container.warnings

    for action, count in (("SCMP_ACT_ERRNO", 1), ("SCMP_ACT_LOG", 0)):
        doc = with_rule(box.document("sleep", "9"), action, "mkdir", "no_such_call")
        warnings = box.during(doc, use)
        assert len([warning for warning in warnings if "no_such_call" in warning]) == count, action


class Answerer:
    """What a seccomp agent was sent, and how often it was asked, after its end."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.descriptors = 0
        self.calls = 0


@contextmanager
def listening(path: Path, answer: int = 28) -> Iterator[Answerer]:
    """A process that answers every call it is notified of with an errno: the agent forks, so no thread may be beside it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    log = path.with_name("answerer.log")
    pid = os.fork()
    if pid == 0:
        try:
            _accept(listener, log, answer)
        finally:
            os._exit(0)
    listener.close()
    answerer = Answerer()
    try:
        yield answerer
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for line in log.read_text().splitlines() if log.exists() else ():
            kind, _, rest = line.partition(" ")
            if kind == "sent":
                answerer.descriptors += int(rest.partition(" ")[0])
                answerer.documents.append(json.loads(rest.partition(" ")[2]))
            answerer.calls += kind == "asked"


def _accept(listener: socket.socket, log: Path, answer: int) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            data, fds, _flags, _ = socket.recv_fds(connection, 1 << 16, 4)
            while more := connection.recv(1 << 16):
                data += more
        _note(log, f"sent {len(fds)} {data.decode()}")
        for fd in fds:
            threading.Thread(target=_serve, args=(fd, log, answer), daemon=True).start()


def _serve(fd: int, log: Path, answer: int) -> None:
    """Until the last process under the filter has ended."""
    while True:
        request = bytearray(80)
        try:
            fcntl.ioctl(fd, NOTIF_RECV, request)
            _note(log, "asked")
            fcntl.ioctl(fd, NOTIF_SEND, request[:8] + struct.pack("=qiI", 0, -answer, 0))
        except OSError:
            os.close(fd)
            return


def _note(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")


def notifying(doc: Document, path: Path, *flags: str) -> Document:
    with_rule(doc, "SCMP_ACT_NOTIFY", "mkdir", "mkdirat", listenerPath=str(path), listenerMetadata="who asks")
    doc["linux"]["seccomp"]["flags"] = list(flags)
    return doc


@pytest.mark.parametrize("no_new_privs", [True, False])
@pytest.mark.parametrize("flags", [(), ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")])
def test_a_listener_answers(box: Box, tmp_path: Path, no_new_privs: bool, flags: tuple[str, ...]) -> None:
    doc = notifying(box.document("sh", "-c", "mkdir /dev/shm/x; ls -l /proc/self/fd | grep -c seccomp"), tmp_path / "s", *flags)
    doc["process"]["noNewPrivileges"] = no_new_privs
    doc["annotations"] = {"a": "b"}
    with listening(tmp_path / "s") as answerer:
        result = box.run(doc)
    assert "No space left on device" in result.stderr
    assert result.stdout.split() == ["0"]  # the descriptor is not the program's
    (document,) = answerer.documents
    assert answerer.descriptors == 1
    assert (document["fds"], document["metadata"]) == (["seccompFd"], "who asks")
    assert document["pid"] == document["state"]["pid"] > 1
    assert (document["state"]["id"], document["state"]["status"], document["state"]["annotations"]) == ("box", "created", {"a": "b"})
    assert answerer.calls


def test_a_listener_for_each_process_that_is_added(box: Box, tmp_path: Path) -> None:
    async def use(container: Container) -> Any:
        return container.init.pid, await execute(container, "sh", "-c", "mkdir /dev/shm/x")

    with listening(tmp_path / "s") as answerer:
        pid, result = box.during(notifying(box.document("sleep", "9"), tmp_path / "s"), use)
    assert "No space left on device" in result.stderr
    first, second = answerer.documents
    assert first["pid"] == first["state"]["pid"] == second["state"]["pid"] == pid
    assert second["pid"] != pid
    assert (first["state"]["status"], second["state"]["status"]) == ("created", "running")


def test_a_listener_that_is_not_there_fails_start(box: Box, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"send seccomp listener: .*No such file"):
        box.run(notifying(box.document("true"), tmp_path / "s"))


def test_a_start_hook_is_under_the_filter_without_a_listener_of_its_own(box: Box, tmp_path: Path) -> None:
    """Its own filter has nobody to answer, so the call does not exist there."""
    doc = notifying(box.document("cat", "/dev/shm/said"), tmp_path / "s")
    doc["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "mkdir /dev/shm/x 2> /dev/shm/said; true"]}]}
    with listening(tmp_path / "s") as answerer:
        assert "Function not implemented" in box.run(doc).stdout
    assert len(answerer.documents) == 1


def test_sizes_of_the_kernels_structures() -> None:
    """SECCOMP_GET_NOTIF_SIZES: what the answerer here is written for."""
    sizes = (ctypes.c_uint16 * 3)()
    assert ctypes.CDLL(None).syscall(317, 3, 0, sizes) == 0
    assert list(sizes) == [80, 24, 64]
