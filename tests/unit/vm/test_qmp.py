"""The control connection to QEMU, against a QEMU that is a socket."""

import json
import os
import socket
from collections.abc import Iterator

import pytest

from innkeeper.vm import saved_state
from innkeeper.vm.qmp import Qmp, QmpError


@pytest.fixture
def connection() -> Iterator[tuple[Qmp, socket.socket]]:
    """A client, and QEMU's end as QEMU has it: a descriptor of its own."""
    qmp = Qmp()
    with socket.socket(fileno=os.dup(qmp.fd)) as far:
        qmp.close_far_end()
        assert json.loads(far.recv(4096))["execute"] == "qmp_capabilities"
        yield qmp, far
    qmp.close()


def say(far: socket.socket, *messages: object) -> None:
    far.sendall(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))


def test_answers_are_found_by_their_number_whatever_comes_between(connection: tuple[Qmp, socket.socket]) -> None:
    qmp, far = connection
    first, second = qmp.send("query-status"), qmp.send("stop")
    say(far, {"QMP": {"version": {}}}, {"event": "STOP"}, {"return": {}, "id": second}, {"return": {"running": True}, "id": first})
    assert qmp.answer(first, "query-status") == {"running": True}
    assert qmp.answer(second, "stop") == {}
    assert qmp.event("STOP")["event"] == "STOP"


def test_commands_sent_before_qemu_starts_wait_in_the_socket(connection: tuple[Qmp, socket.socket]) -> None:
    qmp, far = connection
    saved_state.start_loading(qmp, 7)
    commands = [json.loads(line) for line in far.recv(4096).splitlines()]
    assert [command["execute"] for command in commands] == ["migrate-set-capabilities", "migrate-incoming"]
    assert commands[1]["arguments"] == {"uri": "fd:7"}


def test_a_descriptor_goes_with_its_command(connection: tuple[Qmp, socket.socket]) -> None:
    qmp, far = connection
    read, write = os.pipe()
    qmp.send("getfd", {"fdname": "state"}, fd=write)
    os.close(write)
    data, fds, _, _ = socket.recv_fds(far, 4096, 1)
    assert json.loads(data)["arguments"] == {"fdname": "state"}
    os.write(fds[0], b"state")
    os.close(fds[0])
    assert os.read(read, 10) == b"state"
    os.close(read)


def test_a_refusal_is_told_with_the_command(connection: tuple[Qmp, socket.socket]) -> None:
    qmp, far = connection
    number = qmp.send("device_add")
    say(far, {"error": {"class": "GenericError", "desc": "Bus 'x' not found"}, "id": number})
    with pytest.raises(QmpError, match="QEMU refused device_add: Bus 'x' not found"):
        qmp.answer(number, "device_add")


def test_the_end_of_qemu_and_silence_are_told(connection: tuple[Qmp, socket.socket]) -> None:
    qmp, far = connection
    with pytest.raises(QmpError, match="did not answer in time: cont"):
        qmp.execute("cont", seconds=0.01)
    far.shutdown(socket.SHUT_RDWR)
    with pytest.raises(QmpError, match="QEMU ended before its answer: MIGRATION"):
        saved_state.finish_loading(qmp)


def test_a_failed_load_is_told(connection: tuple[Qmp, socket.socket]) -> None:
    qmp, far = connection
    say(far, *({"event": "MIGRATION", "data": {"status": status}} for status in ("setup", "active", "failed")))
    with pytest.raises(QmpError, match="the state of the VM could not be loaded: failed"):
        saved_state.finish_loading(qmp)


@pytest.mark.parametrize("line", [b"no json\n", b'{"error": {"desc": "JSON parse error"}}\n'])
def test_what_is_not_the_protocol_is_told(connection: tuple[Qmp, socket.socket], line: bytes) -> None:
    qmp, far = connection
    far.sendall(line)
    with pytest.raises(QmpError, match=r"not JSON|JSON parse error"):
        qmp.execute("cont")
