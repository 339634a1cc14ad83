"""The control socket: a request, an answer, errors as they are, and an end at any time."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from innkeeper.engine import control
from innkeeper.errors import InnkeeperError
from tests.eventually import eventually


def handle(request: dict[str, Any]) -> dict[str, Any]:
    if request["command"] == "fail":
        raise InnkeeperError("it does not work", hint="try another")
    return {"asked": request}


def nothing() -> None:
    raise AssertionError("there is no request to interrupt")


def test_request_and_answer(tmp_path: Path) -> None:
    with control.serving(tmp_path, handle, nothing):
        assert (tmp_path / control.SOCKET).stat().st_mode & 0o777 == 0o600
        assert control.ask(tmp_path, "do", size=3) == {"asked": {"command": "do", "size": 3}}
        with pytest.raises(InnkeeperError) as raised:
            control.ask(tmp_path, "fail")
        assert (raised.value.message, raised.value.hint) == ("it does not work", "try another")
    assert not (tmp_path / control.SOCKET).exists()
    with pytest.raises(InnkeeperError, match="does not answer"):
        control.ask(tmp_path, "do")


@pytest.mark.parametrize("sent", [b"", b"\n", b"[1]\n", b"{\n", b"x" * (control.LINE_MAX + 1), b"\xff\n"])
def test_what_is_no_request_gets_no_answer(sent: bytes, tmp_path: Path) -> None:
    with control.serving(tmp_path, handle, nothing):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / control.SOCKET))
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            try:
                assert sock.recv(100) == b""
            except ConnectionResetError:
                pass  # what it had not read is dropped
        assert control.ask(tmp_path, "do")["asked"] == {"command": "do"}


def test_requests_are_served_one_after_the_other(tmp_path: Path) -> None:
    running, seen = [0], []

    def count(request: dict[str, Any]) -> dict[str, Any]:
        running[0] += 1
        seen.append(running[0])
        running[0] -= 1
        return {}

    with control.serving(tmp_path, count, nothing):
        threads = [threading.Thread(target=control.ask, args=(tmp_path, "do")) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == [1] * 20


def test_the_end_interrupts_a_request(tmp_path: Path) -> None:
    begun, interrupted = threading.Event(), threading.Event()

    def long(request: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        assert interrupted.wait(60)
        raise InnkeeperError("the VM has ended")

    failures = []

    def ask() -> None:
        try:
            control.ask(tmp_path, "long")
        except InnkeeperError as error:
            failures.append(error.message)

    asker = threading.Thread(target=ask)
    with control.serving(tmp_path, long, interrupted.set):
        asker.start()
        assert begun.wait(60)
    asker.join()
    assert failures == ["the VM has ended"]


def test_an_answer_that_nobody_reads(tmp_path: Path) -> None:
    seen: list[object] = []

    def note(request: dict[str, Any]) -> dict[str, Any]:
        seen.append(request)
        return {"long": "x" * 100_000}

    with control.serving(tmp_path, note, nothing):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / control.SOCKET))
            sock.sendall(json.dumps({"command": "do"}).encode() + b"\n")
            eventually(lambda: seen)
        with pytest.raises(InnkeeperError):
            control.ask(tmp_path, "do")  # the answer is longer than a line may be
        assert len(seen) == 2
