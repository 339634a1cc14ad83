"""Services in the background: reached from the host, looked at, talked to, and ended by their own stop signal."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.images import busybox_image, nginx_image, redis_image
from tests.needs import needs
from tests.vm.command import PATIENCE, detached, innkeeper, inspected, succeed

pytestmark = pytest.mark.vm


def host_port(name: str) -> int:
    """The port of the host behind the container's only -p."""
    (forward,) = inspected(name)["ports"]
    return int(forward.partition("->")[0].rpartition(":")[2])


def await_ended(name: str) -> dict[str, object]:
    """The record, once the container's owner has gone."""
    eventually(lambda: inspected(name)["status"] not in ("starting", "running"), lambda: inspected(name), PATIENCE, every=0.1)
    return inspected(name)


@pytest.fixture(scope="module")
def box(start: str) -> Iterator[str]:
    """A container that only waits, for many things to be done in."""
    script = "trap 'echo stopping; exit 3' TERM; echo out; echo err >&2; printf '\\377\\000'; while :; do sleep 1; done"
    with detached(busybox_image(), "sh", "-c", script, options=["-e", "GREETING=hello", "--hostname", "box", "--cap-drop", "CHOWN"]) as id:
        yield id


def test_exec_has_the_containers_surroundings(box: str) -> None:
    assert succeed("exec", box, "sh", "-c", "echo $GREETING; hostname; pwd").split() == ["hello", "box", "/"]
    capabilities = succeed("exec", box, "grep", "-E", "^(CapEff|CapBnd|NoNewPrivs|Seccomp):", "/proc/self/status")
    assert capabilities == succeed("exec", box, "grep", "-E", "^(CapEff|CapBnd|NoNewPrivs|Seccomp):", "/proc/1/status")
    changed = succeed("exec", "-u", "guest", "-w", "/tmp", "-e", "A=b", box, "sh", "-c", "id -un; pwd; echo $A")
    assert changed.split() == ["guest", "/tmp", "b"]


def test_exec_carries_input_and_status(box: str) -> None:
    data = bytes(range(256)) * 4096
    done = innkeeper("exec", "-i", box, "cat", data=data)
    assert (done.returncode, done.stdout == data) == (0, True)
    assert innkeeper("exec", box, "sh", "-c", "exit 9").returncode == 9
    assert innkeeper("exec", box, "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    assert innkeeper("exec", box, "/no/such").returncode == 127
    assert innkeeper("exec", box, "cat").stdout == b""  # without -i: end of file at once


def test_exec_detached_goes_on(box: str) -> None:
    succeed("exec", "-d", box, "sh", "-c", "sleep 1; echo done >/tmp/detached")
    deadline = time.monotonic() + 60
    while innkeeper("exec", box, "cat", "/tmp/detached").stdout != b"done\n":
        assert time.monotonic() < deadline


def test_logs_keep_streams_apart_and_bytes_exact(box: str) -> None:
    done = innkeeper("logs", box)
    assert done.stdout == b"out\n\xff\x00"
    assert b"err\n" in done.stderr
    entries = [json.loads(line) for line in succeed("logs", "--json", box).splitlines()]
    assert {entry["stream"] for entry in entries} == {"stdout", "stderr"}
    assert all(entry["time"].endswith("Z") for entry in entries)


def test_ps_lists_containers_and_their_processes(box: str) -> None:
    listed = {entry["id"]: entry for entry in json.loads(succeed("ps", "--json"))}
    assert listed[box]["status"] == "running"
    assert box in succeed("ps", "-q").split()
    processes = json.loads(succeed("ps", "--json", box))
    assert processes[0]["args"][:2] == ["sh", "-c"]
    assert all(process["uid"] == 0 for process in processes)


def test_inspect_shows_the_specification_and_figures(box: str) -> None:
    known = inspected(box[:6])
    assert known["spec"]["process"]["terminal"] is False
    assert "CAP_CHOWN" not in known["spec"]["process"]["capabilities"]["bounding"]
    assert known["guest"]["memory_bytes"] > 0
    assert known["machine"]["accel"] in ("kvm", "tcg")


def test_two_machines_at_once(box: str) -> None:
    with detached(busybox_image(), "sleep", "1000", options=["--hostname", "other"]) as other:
        assert succeed("exec", other, "hostname").strip() == "other"
        assert succeed("exec", box, "hostname").strip() == "box"
        assert {box, other} <= set(succeed("ps", "-q").split())
        succeed("kill", other)
        assert await_ended(other)["exit_status"] == 128 + signal.SIGKILL


def test_stop_sends_the_stop_signal_and_waits(box: str) -> None:
    """The last one to use `box`."""
    succeed("stop", "-t", "60", box)
    assert await_ended(box)["exit_status"] == 3
    assert innkeeper("logs", box).stdout.endswith(b"stopping\n")
    refused = innkeeper("exec", box, "true")
    assert (refused.returncode, b"is not running" in refused.stderr) == (125, True)
    succeed("rm", box)
    assert innkeeper("inspect", box).returncode == 125


def test_stop_kills_what_does_not_listen() -> None:
    with detached(busybox_image(), "sh", "-c", "trap '' TERM; sleep 1000") as id:
        succeed("stop", "-t", "1", id)
        assert await_ended(id)["exit_status"] == 128 + signal.SIGKILL


def test_rm_of_a_running_one_needs_force() -> None:
    with detached(busybox_image(), "sleep", "1000") as id:
        assert innkeeper("rm", id).returncode == 125
        succeed("rm", "-f", id)
        assert id not in succeed("ps", "-aq").split()


@needs("redis-benchmark")
def test_redis_answers_from_the_host() -> None:
    with detached(redis_image(), options=["-p", "127.0.0.1::6379"]) as id:
        benchmark = ["redis-benchmark", "-p", str(host_port(id)), "-n", "2000", "-c", "5", "-t", "ping,set,get", "--csv"]
        _await_port(host_port(id), b"PING\r\n", b"+PONG")
        done = subprocess.run(benchmark, capture_output=True, text=True, timeout=300, check=True)
        tests = [line.split(",")[0].strip('"') for line in done.stdout.splitlines()[1:]]
        assert {"SET", "GET"} <= set(tests)
        assert succeed("exec", id, "redis-cli", "dbsize").strip() != "0"
        assert "Ready to accept connections" in succeed("logs", id)
        assert any(process["args"][0].startswith("redis-server") for process in json.loads(succeed("ps", "--json", id)))
        succeed("stop", "-t", "60", id)
        assert await_ended(id)["exit_status"] == 0
        assert "User requested shutdown" in succeed("logs", id)


@needs("curl")
def test_nginx_serves_a_folder_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("first\n")
    tmp_path.chmod(0o755)
    with detached(nginx_image(), options=["-p", "127.0.0.1::80", "-v", f"{tmp_path}:/var/www/html:ro"]) as id:
        url = f"http://127.0.0.1:{host_port(id)}/"
        _await_port(host_port(id), b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 200")
        assert subprocess.run(["curl", "-sf", url], capture_output=True, check=True).stdout == b"first\n"
        (tmp_path / "more").write_bytes(b"x" * 3_000_000)
        assert subprocess.run(["curl", "-sf", f"{url}more"], capture_output=True, check=True).stdout == b"x" * 3_000_000
        succeed("stop", "-t", "60", id)
        assert await_ended(id)["exit_status"] == 0  # SIGQUIT, which the image names, lets nginx end in order


def _await_port(port: int, question: bytes, answer: bytes) -> None:
    """Ask until the service in the guest answers: it starts after the container does."""
    import socket

    def answers() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as asked:
                asked.sendall(question)
                return asked.recv(100).startswith(answer)
        except OSError:
            return False

    eventually(answers, f"nothing answered on port {port}", 120, every=0.2)
