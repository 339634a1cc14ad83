"""containerd's ttRPC in Go as another implementation: built from `oracle/`, driven by its standard input and output."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from innkeeper import paths, programs
from tests.contract.agent_process import PATIENCE
from tests.eventually import eventually

SOURCE = Path(__file__).resolve().parent / "oracle"
BUILD_SECONDS = 900.0
"""The first time it downloads its modules and compiles them, perhaps the standard library too."""


@dataclass(frozen=True)
class Call:
    """What the Go client is to call. `padding`: bytes of a field that no message has."""

    service: str
    method: str
    payload: bytes = b""
    padding: int = 0
    timeout_ms: int = 0
    metadata: str = ""


@dataclass(frozen=True)
class Answer:
    """What it was answered."""

    code: int
    message: str
    payload: bytes


def build(folder: Path) -> Path:
    """The program, made with this host's Go; modules and objects are kept in the project's cache."""
    program = folder / "oracle"
    cache = paths.cache_root() / "go"
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -modcacherw",
        "GOTOOLCHAIN": "local",
        "GOPATH": str(cache),
        "GOMODCACHE": str(cache / "mod"),
        "GOCACHE": str(cache / "build"),
    }
    done = subprocess.run(
        [programs.require("go"), "build", "-trimpath", "-buildvcs=false", "-o", program, "."],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=SOURCE,
        env=environment,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"go build in {SOURCE} failed with status {done.returncode}:\n{done.stdout}", pytrace=False)
    return program


def calls(program: Path, socket: Path, wanted: Sequence[Call]) -> list[Answer]:
    """Make all the calls at once on one connection; their answers in the order of the calls."""
    lines = [
        json.dumps(
            {
                "id": number,
                "service": call.service,
                "method": call.method,
                "payload": base64.b64encode(call.payload).decode(),
                "padding": call.padding,
                "timeout_ms": call.timeout_ms,
                "metadata": call.metadata,
            }
        )
        for number, call in enumerate(wanted)
    ]
    done = subprocess.run(
        [program, "client", socket], input="\n".join(lines), stdout=subprocess.PIPE, text=True, timeout=2 * PATIENCE, check=True
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    answers = {entry["id"]: Answer(entry["code"], entry["message"], base64.b64decode(entry["payload"] or "")) for entry in told}
    assert sorted(answers) == list(range(len(wanted)))
    return [answers[number] for number in range(len(wanted))]


@contextmanager
def server(program: Path, socket: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The Go server on `socket`; it ends with its standard input."""
    process = subprocess.Popen([program, "server", socket], stdin=subprocess.PIPE)
    try:
        eventually(lambda: socket.exists() or process.poll() is not None, "the server does not listen", PATIENCE)
        assert process.poll() is None, "the server has ended"
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE)
    assert process.returncode == 0
