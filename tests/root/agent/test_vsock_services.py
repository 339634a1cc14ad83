"""The log's port, the debug console's, and streams that the host has dialled before.

An agent outside of a guest has its ports beside its socket.
"""

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper.image.proto import process_to_proto, to_proto
from innkeeper.shim import network_helper
from innkeeper.wire.pb import agent_pb2 as pb
from tests.eventually import eventually
from tests.needs import needs
from tests.paths import ROOT
from tests.root.agent_helpers import NativeAgent, native_agent, read_to_end, shim_document
from tests.root.container_helpers import PATH

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]


@contextmanager
def agent_with(folder: Path, **settings: object) -> Iterator[NativeAgent]:
    """An agent with a TOML file of these settings."""
    file = folder / "agent.toml"
    words = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    file.write_text("\n".join([f'server_addr = "unix://{folder}/agent.sock"', *words]))
    with native_agent(folder, "--config", str(file)) as agent:
        yield agent


Dial = Callable[..., socket.socket]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """dial(agent, port, own): a connection to a port; `own` is the number of our end. All are closed after the test."""
    clients: list[socket.socket] = []

    def connect(agent: NativeAgent, port: int, own: int = 0) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        clients.append(client)
        if own:
            client.bind(str(agent.folder / f"peer-{own}"))
        client.settimeout(30)
        client.connect(str(agent.folder / f"agent.sock-{port}"))
        return client

    yield connect
    for client in clients:
        client.close()


def until(client: socket.socket, word: bytes) -> bytes:
    data = b""
    while word not in data:
        piece = client.recv(4096)
        assert piece, data
        data += piece
    return data


def test_log_port(tmp_path: Path, dial: Dial) -> None:
    """Lines from the start on wait for the reader; the console has none of them; each is whole JSON."""
    with agent_with(tmp_path, log_vport=1025, log_level="debug") as guest:
        guest.sandbox()
        with dial(guest, 1025) as reader:
            text = until(reader, b'"announce"')
            guest.refusal("StartContainer", pb.StartContainerRequest(container_id="nobody"))
            text += until(reader, b"nobody")
        with dial(guest, 1025) as second:
            guest.refusal("StartContainer", pb.StartContainerRequest(container_id="again"))
            guest.refusal("StartContainer", pb.StartContainerRequest(container_id="again"))
            until(second, b"again")
        lines = [json.loads(line) for line in text.split(b"\n")[:-1]]
        assert all({"msg", "level", "ts", "name", "source", "subsystem", "pid", "version"} <= set(line) for line in lines)
        assert guest.log == ""


def test_debug_console(tmp_path: Path, dial: Dial) -> None:
    """A shell with a terminal a connection; it ends with the connection, and the connection with it."""
    with agent_with(tmp_path, debug_console=True, debug_console_vport=1026) as guest:
        with dial(guest, 1026) as first, dial(guest, 1026) as second:
            first.sendall(b"echo tty is $(tty), $((6 * 7))\n")
            assert b"tty is /dev/pts/" in until(first, b", 42")
            second.sendall(b"exit\n")
            while second.recv(4096):
                pass
            first.sendall(b"exec sleep 12345\n")
            until(first, b"sleep 12345")
        eventually(lambda: "12345" not in _commands(guest))


def test_debug_console_without_a_shell(tmp_path: Path, dial: Dial) -> None:
    """A release image says what it lacks, and where a shell is to be had."""
    sentence = "This guest is a release image: it has no shell. Build one that has: ./build.py build --variant debug"
    patch = tmp_path / "sitecustomize.py"
    patch.write_text("import os\nreal = os.path.exists\nos.path.exists = lambda path: path != '/bin/sh' and real(path)\n")
    file = tmp_path / "agent.toml"
    file.write_text(f'server_addr = "unix://{tmp_path}/agent.sock"\ndebug_console = true\ndebug_console_vport = 1026\n')
    paths = os.pathsep.join((str(tmp_path), str(ROOT)))
    with native_agent(tmp_path, "-c", str(file), env={"PYTHONPATH": paths}) as guest, dial(guest, 1026) as client:
        assert read_to_end(lambda: client.recv(4096)) == f"{sentence}\r\n"


def _commands(guest: NativeAgent) -> str:
    commands = []
    for entry in (guest.root / "proc").iterdir():
        if entry.name.isdigit():
            try:
                commands.append((entry / "cmdline").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return "\n".join(commands)


def test_streams_passed_on(tmp_path: Path, container_root: Path, dial: Dial) -> None:
    """Input, output and error by connections of the host's, of a container and of a process that is added."""
    with agent_with(tmp_path, passfd_listener_port=1027) as guest:
        guest.sandbox()
        stdin, stdout, stderr = (dial(guest, 1027, own) for own in (11, 12, 13))
        spec = shim_document(container_root, "sh", "-c", "wc -c; echo oops >&2; exec sleep 1000")
        guest.start("c1", spec, stdin_port=11, stdout_port=12, stderr_port=13)
        stdin.sendall(bytes(3_000_000))
        stdin.shutdown(socket.SHUT_WR)
        assert until(stdout, b"\n") == b"3000000\n"
        assert until(stderr, b"\n") == b"oops\n"

        out = dial(guest, 1027, 21)
        process = process_to_proto({"args": ["echo", "added"], "env": [PATH], "cwd": "/", "user": {"uid": 0, "gid": 0}})
        guest.do("ExecProcess", pb.ExecProcessRequest(container_id="c1", exec_id="e1", process=process, stdout_port=21))
        assert read_to_end(lambda: out.recv(4096)) == "added\n"
        assert guest.agent.wait_process("c1", "e1", 30) == 0

        stdout.close()
        guest.agent.signal_process("c1", "", 9)
        assert guest.agent.wait_process("c1", "c1", 30) == 137
        assert read_to_end(lambda: stderr.recv(4096)) == ""


def test_a_terminal_passed_on(tmp_path: Path, container_root: Path, dial: Dial) -> None:
    with agent_with(tmp_path, passfd_listener_port=1027) as guest:
        guest.sandbox()
        stdin, stdout = dial(guest, 1027, 11), dial(guest, 1027, 12)
        spec = shim_document(container_root, "sh", "-c", "read line; echo got $line; tty")
        spec["process"]["terminal"] = True
        guest.start("c1", spec, stdin_port=11, stdout_port=12)
        stdin.sendall(b"hello\n")
        assert read_to_end(lambda: stdout.recv(4096)) == "hello\r\ngot hello\r\n/dev/pts/0\r\n"
        assert guest.agent.wait_process("c1", "c1", 30) == 0


def test_ports_that_do_not_fit(tmp_path: Path, container_root: Path, dial: Dial) -> None:
    """What the call does not take is closed with its failure."""
    spec = to_proto(shim_document(container_root, "true"))
    with agent_with(tmp_path, passfd_listener_port=1027) as guest:
        guest.sandbox()
        out = dial(guest, 1027, 12)
        twice = pb.CreateContainerRequest(container_id="c1", exec_id="c1", OCI=spec, stdout_port=12, stderr_port=12)
        assert "one port is given twice" in guest.refusal("CreateContainer", twice).message
        spec.Process.Args[:] = ["/no/such/program"]
        lost = pb.CreateContainerRequest(container_id="c1", exec_id="c1", OCI=spec, stdout_port=12)
        assert "/no/such/program" in guest.refusal("CreateContainer", lost).message
        assert out.recv(1) == b""
    (tmp_path / "other").mkdir()
    with native_agent(tmp_path / "other") as guest:
        guest.sandbox()
        assert "agent.passfd_listener_port is not set" in guest.refusal("CreateContainer", twice).message


def test_pipe_size(tmp_path: Path, container_root: Path) -> None:
    """F_GETPIPE_SZ of a program's output is what the setting says."""
    with agent_with(tmp_path, container_pipe_size=8192) as guest:
        guest.sandbox()
        guest.start("c1", shim_document(container_root, "sleep", "1000"))
        pid = next(entry for entry in (guest.root / "proc").iterdir() if entry.name.isdigit() and "sleep" in _command(entry))
        for number in (1, 2):
            with (pid / f"fd/{number}").open("wb") as pipe:
                assert stat.S_ISFIFO(os.fstat(pipe.fileno()).st_mode)
                assert fcntl.fcntl(pipe.fileno(), 1032) == 8192


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_version_and_arguments() -> None:
    for word in ("--version", "-v"):
        told = subprocess.run([sys.executable, "-m", "agent", word], capture_output=True, text=True, check=True, cwd=ROOT)
        assert told.stdout == "innkeeper agent, version 4.1.0 and API version 0.0.1 of Kata's agent\n"


def socket_of(guest: NativeAgent, family: int) -> socket.socket:
    """Return a socket in the agent's network namespace, made by a thread that has entered it."""

    def make() -> socket.socket:
        network_helper.enter(f"/proc/{guest.process.pid}/ns/net")
        return socket.socket(family)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


def test_port_forward(tmp_path: Path, dial: Dial) -> None:
    """A line chooses the port of localhost, in IPv4 or IPv6; then both directions are copied, each to its own end."""
    with agent_with(tmp_path, port_forward_vport=1028) as guest:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket_of(guest, family) as server:
                server.bind((address, 0))
                server.listen()
                with dial(guest, 1028) as client:
                    client.sendall(f"CONNECT {server.getsockname()[1]}\nearly".encode())
                    until(client, b"OK\n")
                    accepted, _ = server.accept()
                    with accepted:
                        client.shutdown(socket.SHUT_WR)
                        assert until(accepted, b"early") == b"early"
                        assert accepted.recv(10) == b""
                        accepted.sendall(b"answer")
                        accepted.close()
                        assert until(client, b"answer") == b"answer"
                        assert client.recv(10) == b""
        for line, reason in (
            (b"CONNECT 1\n", b"Connection refused"),
            (b"CONNECT 70000\n", b"a port of 1 to 65535"),
            (b"x" * 40, b"expected"),
        ):
            with dial(guest, 1028) as client:
                client.sendall(line)
                answer = until(client, b"\n")
                assert answer.startswith(b"ERROR ") and reason in answer
