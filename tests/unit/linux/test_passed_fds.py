"""Descriptors from another process: close-on-exec, and a call that must not wait does not."""

import os
import socket

import pytest

from agent.linux.passed_fds import receive_fds


def test_what_comes_is_close_on_exec() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        socket.send_fds(one, [b"name"], [0, 1])
        data, fds = receive_fds(other, 100, 2)
        assert (data, [os.get_inheritable(fd) for fd in fds]) == (b"name", [False, False])
        for fd in fds:
            os.close(fd)


def test_nothing_is_not_waited_for() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other, pytest.raises(BlockingIOError):
        receive_fds(other, 100, 2, socket.MSG_DONTWAIT)
