"""What a command that cannot be run becomes: docker's exit statuses, from what the agent says to programs, whatever its message says."""

import errno
import os

import pytest

from innkeeper.client import RpcError
from innkeeper.engine.guest_agent import agent_error
from innkeeper.wire import error_info, status


def refused(step: str, number: int, reason: str = error_info.STEP_FAILED) -> int:
    metadata = {"step": step, "errno": errno.errorcode[number]}
    return agent_error(RpcError(status.INTERNAL, f"{step}: x: {os.strerror(number)}", reason=reason, metadata=metadata)).exit_status


@pytest.mark.parametrize(
    ("step", "number", "exit_status"),
    [
        ("find program", errno.ENOENT, 127),
        ("find program", errno.EACCES, 126),
        ("find program", errno.ENOTDIR, 126),
        ("execute program", errno.ENOENT, 127),  # the program's interpreter
        ("execute program", errno.ENOEXEC, 126),
        ("execute program", errno.ETXTBSY, 126),
        ("enter working directory", errno.ENOENT, 127),
        ("enter working directory", errno.EACCES, 126),
        ("place mounts", errno.ENOENT, 125),
    ],
)
def test_status_of_a_step(step: str, number: int, exit_status: int) -> None:
    assert refused(step, number) == exit_status


def test_the_message_is_for_people_alone() -> None:
    assert agent_error(RpcError(status.INTERNAL, "find program: x: No such file or directory")).exit_status == 125
    assert refused("find program", errno.ENOENT, reason="REFUSED") == 125
