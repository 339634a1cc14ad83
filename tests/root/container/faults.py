"""Failing system calls, one in turn: the seam is the few functions by which the agent calls the kernel, none of the agent's own code."""

import builtins
import ctypes
import errno
import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.linux import libc, passed_fds

OF_OS = (
    "open", "pipe", "pipe2", "read", "write", "mkdir", "rmdir", "mknod", "symlink", "readlink", "chown", "fchown", "stat", "lstat", "fstat",
    "listdir", "scandir", "set_blocking", "set_inheritable", "dup2", "fchdir", "chdir", "getcwdb", "setsid", "kill", "memfd_create",
)  # fmt: skip
OF_SOCKET = ("socketpair", "send_fds")


class Faults:
    """Counts the calls of one side, the test's process or its children, and lets the `at`-th fail."""

    def __init__(self, patch: pytest.MonkeyPatch, in_child: bool) -> None:
        self._own = os.getpid()
        self._in_child = in_child
        self._armed = False
        self._at = 0
        self._number = errno.EMFILE
        self.count = 0
        self.failed = ""
        for name in OF_OS:
            patch.setattr(os, name, self._wrapped(f"os.{name}", getattr(os, name)))
        for name in OF_SOCKET:
            patch.setattr(socket, name, self._wrapped(f"socket.{name}", getattr(socket, name)))
        patch.setattr(passed_fds, "receive_fds", self._wrapped("receive_fds", passed_fds.receive_fds))
        patch.setattr(builtins, "open", self._wrapped("open", builtins.open))
        patch.setattr(io, "open", self._wrapped("io.open", io.open))
        patch.setattr(libc, "_syscall", self._raw(libc._syscall))

    @contextmanager
    def failing(self, at: int, number: int) -> Iterator[None]:
        """While this lasts the `at`-th call fails with `number`; 0: none does, they are only counted."""
        self._armed, self._at, self._number, self.count, self.failed = True, at, number, 0, ""
        try:
            yield
        finally:
            self._armed = False

    def _fails(self, name: str) -> bool:
        if not self._armed or (os.getpid() == self._own) is self._in_child:
            return False
        self.count += 1
        if self.count == self._at:
            self.failed = name
            return True
        return False

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self._fails(name):
                raise OSError(self._number, f"{os.strerror(self._number)} (injected: {name})")
            return function(*args, **options)

        return call

    def _raw(self, function: Callable[..., Any]) -> Callable[..., Any]:
        names = {number: name for name, number in libc.NUMBERS.items()}

        def call(number: ctypes.c_long, *args: Any) -> Any:
            if self._fails(names[number.value]):
                ctypes.set_errno(self._number)
                return -1
            return function(number, *args)

        return call
