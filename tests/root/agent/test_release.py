"""Processes that nobody attends to: released at once (`exec -d`), or when the connection of who attended to them ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.client import Agent, RpcError, connect
from innkeeper.image.proto import process_to_proto
from innkeeper.wire import status
from tests.eventually import eventually
from tests.needs import needs
from tests.paths import ROOT
from tests.root.agent_helpers import NativeAgent, native_agent, shim_document
from tests.root.container_helpers import PATH

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]

MUCH = "yes 0123456789 | head -c 8000000; yes 0123456789 | head -c 8000000 >&2; touch /run/done-{name}"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, container_root: Path) -> Iterator[NativeAgent]:
    with native_agent(tmp_path_factory.mktemp("release")) as agent:
        agent.sandbox()
        spec = shim_document(container_root, "sleep", "1000")
        spec["mounts"].append({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]})
        agent.start("box", spec)
        yield agent


def begin(agent: Agent, exec_id: str, script: str, *, terminal: bool = False) -> None:
    document = {"args": ["sh", "-c", script], "env": [PATH], "cwd": "/", "user": {"uid": 0, "gid": 0}, "terminal": terminal}
    agent.exec_process("box", exec_id, process_to_proto(document))


def is_forgotten(agent: Agent, exec_id: str) -> bool:
    try:
        agent.tty_win_resize("box", exec_id, 1, 1)
    except RpcError as error:
        return error.code == status.NOT_FOUND
    return False


def open_files(guest: NativeAgent) -> int:
    return len(os.listdir(f"/proc/{guest.pid}/fd"))


def is_there(guest: NativeAgent, name: str) -> bool:
    return guest.exec("box", "look", "test", "-e", f"/run/{name}").status == 0


def test_a_released_process_runs_to_its_end_and_leaves_nothing(guest: NativeAgent) -> None:
    guest.exec("box", "warm", "true")
    before = open_files(guest)
    for number in range(8):
        begin(guest.agent, f"loud{number}", MUCH.format(name=number) + f"; [ {number} = 0 ] && cat; touch /run/read-{number}")
        guest.agent.release_process("box", f"loud{number}")
    for number in range(8):
        eventually(lambda number=number: is_forgotten(guest.agent, f"loud{number}"), f"{number} is forgotten")  # type: ignore[misc]
        assert is_there(guest, f"done-{number}")
    assert is_there(guest, "read-0"), "its input has ended"
    eventually(lambda: open_files(guest) <= before, "its descriptors are given back")


@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
def test_a_released_process_with_children_that_hold_its_output(guest: NativeAgent, terminal: bool) -> None:
    before = open_files(guest)
    name = f"parent-{terminal}"
    begin(guest.agent, name, "(trap '' HUP; sleep 3; touch /run/late) & exit 3", terminal=terminal)
    guest.agent.release_process("box", name)
    eventually(lambda: is_forgotten(guest.agent, name), "its end is noticed although its output is held")
    eventually(lambda: open_files(guest) <= before, "its descriptors are given back")


CLIENT = """
import sys, threading
from innkeeper.client import Agent, connect
with connect(sys.argv[1], 10) as client:
    agent = Agent(client)
    threading.Thread(target=lambda: agent.release_process("box", sys.argv[2], when_caller_goes=True), daemon=True).start()
    print(agent.read_stdout("box", sys.argv[2], 1), flush=True)
    sys.stdin.read()
"""


def kill_client_of(guest: NativeAgent, exec_id: str) -> None:
    """Let another process attend to `exec_id` until it has read a byte, then kill it."""
    argv = [sys.executable, "-c", CLIENT, guest.address, exec_id]
    client = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert client.stdout is not None and client.stdout.readline() == b"b'x'\n"
    assert not is_forgotten(guest.agent, exec_id)
    client.kill()
    client.communicate()


def test_a_process_whose_client_is_killed_goes_on(guest: NativeAgent) -> None:
    before = open_files(guest)
    begin(guest.agent, "left", "printf x; cat; " + MUCH.format(name="left"))
    kill_client_of(guest, "left")
    eventually(lambda: is_forgotten(guest.agent, "left"), "it has ended and is forgotten")
    assert is_there(guest, "done-left")
    eventually(lambda: open_files(guest) <= before, "its descriptors are given back")


def test_a_terminal_whose_client_is_killed_hangs_up(guest: NativeAgent) -> None:
    before = open_files(guest)
    begin(guest.agent, "shell", "trap 'touch /run/hung-up; exit 0' HUP; printf x; while :; do sleep 1; done", terminal=True)
    kill_client_of(guest, "shell")
    eventually(lambda: is_forgotten(guest.agent, "shell"), "it has ended and is forgotten")
    assert is_there(guest, "hung-up")
    eventually(lambda: open_files(guest) <= before, "its descriptors are given back")


def test_the_answer_comes_when_the_process_is_forgotten(guest: NativeAgent) -> None:
    begin(guest.agent, "short", "exit 4")
    with connect(guest.address, 10) as client:
        other = Agent(client)
        assert guest.finish("box", "short").status == 4
        with pytest.raises(RpcError) as caught:
            other.release_process("box", "short", when_caller_goes=True)
        assert caught.value.code == status.NOT_FOUND


def test_a_container_that_is_removed_takes_its_released_processes_along(guest: NativeAgent, container_root: Path) -> None:
    before = open_files(guest)
    guest.start("other", shim_document(container_root, "sleep", "1000"))
    process = process_to_proto({"args": ["yes"], "env": [PATH], "cwd": "/", "user": {"uid": 0, "gid": 0}})
    guest.agent.exec_process("other", "endless", process)
    guest.agent.release_process("other", "endless")
    guest.agent.signal_process("other", "", signal.SIGKILL)
    guest.agent.remove_container("other")
    eventually(lambda: open_files(guest) <= before, "its descriptors are given back")
    assert "Traceback" not in guest.log
