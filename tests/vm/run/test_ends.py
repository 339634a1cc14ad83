"""How processes end, and what is told of it; what the caller has closed; the guest's clock; ports in IPv4 and IPv6. Beside docker."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.client import Agent, connect
from tests.eventually import eventually
from tests.image_helpers import Layout, busybox_root, layer, tar
from tests.images import busybox_image
from tests.vm.command import ARGV, PATIENCE, environment, innkeeper, inspected, succeed

pytestmark = pytest.mark.vm

SERVE = "while :; do echo hello | nc -l -p 8080; done & trap 'exit 5' TERM; while :; do sleep 1; done"


@pytest.fixture(scope="module")
def box(start: str) -> Iterator[str]:
    """A container with a port, for many things to be done in."""
    id = succeed("run", "-d", "-p", "8080", busybox_image(), "sh", "-c", SERVE).strip()
    try:
        yield id
    finally:
        innkeeper("rm", "-f", id)


PROGRAMS = r"""
cd /tmp
printf '#!/no/such/interpreter\n' >lost; printf '\177ELF\2\1\1' >alien; printf text >text
head -c 9 /dev/zero >>alien; printf '\2\0\267\0' >>alien; head -c 100 /dev/zero >>alien
printf '\177ELF\1\1\1' >i386; head -c 9 /dev/zero >>i386; printf '\2\0\3\0' >>i386; head -c 100 /dev/zero >>i386
chmod 755 lost alien text i386
"""


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (("nosuch",), 127, b"nosuch"),
        (("/no/such",), 127, b"/no/such"),
        (("/tmp/lost",), 127, b"/tmp/lost"),
        (("/tmp/text",), 126, b"neither an ELF program nor a script"),
        (("/tmp/alien",), 126, b"a program for aarch64, and this kernel runs those for x86_64 alone"),
        (("/tmp/i386",), 126, b"a program for i386, and this kernel runs those for x86_64 alone"),
        (("/etc/group",), 126, b"Permission denied"),
        (("/tmp",), 126, b"is a directory"),
        (("/etc/passwd/x",), 126, b"Not a directory"),
        (("-w", "/no/such", "true"), 127, b"/no/such"),
        (("-w", "/etc/passwd", "true"), 126, b"/etc/passwd"),
        (("-u", "1", "sh", "-c", "kill -9 $$"), 137, b""),
        (("sh", "-c", "exit 255"), 255, b""),
    ],
)
def test_status_of_exec(box: str, command: tuple[str, ...], status: int, message: bytes) -> None:
    if innkeeper("exec", box, "test", "-e", "/tmp/lost").returncode != 0:
        succeed("exec", box, "sh", "-c", PROGRAMS)
    options = command[:2] if command[0].startswith("-") else ()
    done = innkeeper("exec", *options, box, *command[len(options) :])
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr


def test_the_caller_s_closed_streams(box: str) -> None:
    for redirection, expected in (("<&-", b"out\n"), (">&-", b""), ("2>&-", b"out\n"), ("<&- >&- 2>&-", b"")):
        script = f'exec "$@" {redirection}'
        argv = ["sh", "-c", script, "sh", *ARGV, "exec", "-i", box, "sh", "-c", "cat; echo out; echo err >&2; exit 7"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=PATIENCE, check=False)
        assert (done.returncode, done.stdout) == (7, expected), redirection


def test_exec_that_nobody_reads(box: str) -> None:
    succeed("exec", "-d", box, "sh", "-c", "cat; yes | head -c 4000000; yes | head -c 4000000 >&2; touch /tmp/written")
    eventually(lambda: innkeeper("exec", box, "test", "-e", "/tmp/written").returncode == 0, "its output is thrown away", PATIENCE)


def test_the_clock_is_right_again(box: str) -> None:
    """As after a stop of the machine: the guest's clock is behind, or far ahead."""
    with connect(inspected(box)["machine"]["address"].replace("PORT", "1024"), timeout=30) as client:
        agent = Agent(client)
        for wrong in (1_000_000_000, int(time.time()) - 30, int(time.time()) + 86400):
            agent.set_guest_date_time(wrong, 0)
            eventually(lambda: abs(agent.get_clock() / 1e9 - time.time()) < 5, "the clock is set", PATIENCE)
    assert abs(int(succeed("exec", box, "date", "+%s")) - time.time()) < 60


def test_a_bare_port_is_published_in_both_families(box: str) -> None:
    (forward,) = inspected(box)["ports"]
    port = int(forward.partition("->")[0].rpartition(":")[2])

    def answers(address: str) -> bool:
        try:
            with socket.create_connection((address, port), timeout=30) as sock:
                return sock.recv(100) == b"hello\n"
        except OSError:
            return False

    for address in ("127.0.0.1", "::1"):
        eventually(lambda address=address: answers(address), address, PATIENCE)  # type: ignore[misc]


def test_exposed_ports_are_published(tmp_path: Path) -> None:
    """`-P` publishes what the image exposes, but not a second time what `-p` names."""
    layout = Layout()
    config = {"Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}}}
    image = layout.save(tmp_path / "image.tar", layout.add_image([layer(tar(busybox_root()))], {"os": "linux"}, config))
    id = succeed("run", "-d", "-P", "-p", "127.0.0.1::80", image).strip()
    try:
        ports = inspected(id)["ports"]
    finally:
        innkeeper("rm", "-f", id)
    assert [re.sub(r"\d+->", "->", port) for port in ports] == ["127.0.0.1:->80/tcp", "0.0.0.0:->53/udp"]


def test_the_end_of_the_container_itself(box: str) -> None:
    """The last one to use `box`."""
    state = inspected(box)["State"]
    assert (state["Status"], state["Running"], state["FinishedAt"]) == ("running", True, "0001-01-01T00:00:00Z")
    succeed("stop", "-t", "60", box)
    eventually(lambda: inspected(box)["State"]["Status"] == "exited", "it ends", PATIENCE)
    state = inspected(box)["State"]
    assert (state["ExitCode"], state["OOMKilled"], state["Error"]) == (5, False, "")
    assert inspected(box)["Created"] < state["StartedAt"] < state["FinishedAt"]


def test_what_is_told_of_memory_that_ran_out_and_of_a_program_that_is_missing() -> None:
    names = [f"ends-{number}-{time.time_ns()}" for number in range(2)]
    try:
        done = innkeeper("run", "--name", names[0], "--memory", "32m", "--network", "none", busybox_image(), "tail", "/dev/zero")
        assert done.returncode == 137, done.stderr
        state = inspected(names[0])["State"]
        assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 137, True)
        assert innkeeper("run", "--name", names[1], "--network", "none", busybox_image(), "nosuch").returncode == 127
        state = inspected(names[1])["State"]
        assert (state["Status"], state["ExitCode"], "nosuch" in state["Error"]) == ("created", 127, True)
        listed = {entry["name"]: entry["Status"] for entry in json.loads(succeed("ps", "-a", "--json"))}
        assert listed[names[0]].startswith("Exited (137) ")
        assert listed[names[1]] == "Created (failed: 127)"
    finally:
        innkeeper("rm", *names)
