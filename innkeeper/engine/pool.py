"""The pool: a process that keeps clones of one template ready to be claimed (`innkeeper pool`).

Under TCG a fresh clone has to translate all code again, which takes most of the time of a short
run. Only a QEMU process that has run the code has the translations. So each VM here has run a
throw-away container, and waits.

The pool stays the owner of a VM that was claimed: QEMU and the relay of its channel end with this
process. The claimer's connection is its lease (see `innkeeper.vm.pooled`, which has the protocol).
One thread prepares VMs, one after the other. One thread per connection serves a claim from its
first line to the end of its VM. A VM has one user in its life.
"""

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from innkeeper import progress
from innkeeper.client import RpcError
from innkeeper.dial import read_line
from innkeeper.errors import InnkeeperError
from innkeeper.vm import pooled
from innkeeper.vm.pooled import Claim

CHECK_SECONDS = 1.0
"""Seconds between two looks at VMs that nobody waits for."""
RETRY_SECONDS = 10.0
"""Seconds from a VM that could not be prepared to the next attempt."""
CLOSE_SECONDS = 10.0
"""Seconds that the end of all VMs may take."""
HEAD_START_SECONDS = 0.5
"""Seconds that a claimed VM has the processors for itself before the next one is prepared."""
EXPECTED_BYTES = 160 << 20
"""Bytes of the host's memory that a VM is expected to take, until one is known."""


class Vm(Protocol):
    """What the pool needs of a VM (`warm_vm.WarmVm`)."""

    @property
    def pid(self) -> int: ...
    def prepare(self, key: str) -> None: ...
    def claim(self, claim: Claim) -> dict[str, Any]: ...
    def failure(self) -> str | None: ...
    def memory(self) -> int: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Kind:
    """What VMs the pool has: how to make one, the key of its template, and how to make that."""

    key: str
    make: Callable[[], Vm]
    make_template: Callable[[], None]


class Pool:
    """Keeps `size` idle VMs that take at most `memory` bytes together. `close` ends all VMs."""

    def __init__(self, kind: Kind, size: int, memory: int) -> None:
        self.kind = kind
        self.size = size
        self.memory = memory
        self._changed = threading.Condition()
        self._idle: list[Vm] = []
        self._all: set[Vm] = set()
        self._claimed = 0
        self._just_taken = False
        self._largest = EXPECTED_BYTES
        self._failure = ""
        self._closing = False
        self._threads: set[threading.Thread] = set()
        self._start_thread(self._refill, "refill")

    def close(self) -> None:
        """End every VM, claimed ones too, and wait until nothing of them is left."""
        with self._changed:
            self._closing = True
            vms, threads = list(self._all), list(self._threads)
            self._changed.notify_all()
        for vm in vms:
            vm.kill()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            # One may be waiting for the maker of a template, which ends by itself.
            thread.join(max(0.0, deadline - time.monotonic()))

    def status(self) -> dict[str, Any]:
        """Return the pool's numbers, for `doctor`."""
        with self._changed:
            idle = list(self._idle)
            known = {"key": self.kind.key, "size": self.size, "idle": len(idle), "claimed": self._claimed, "failure": self._failure}
        return {**known, "memory": sum(vm.memory() for vm in idle), "limit": self.memory}

    def _start_thread(self, target: Callable[..., None], name: str, *arguments: Any) -> None:
        thread = threading.Thread(target=self._run_thread, args=(target, *arguments), name=name, daemon=True)
        with self._changed:
            self._threads.add(thread)
        thread.start()

    def _run_thread(self, target: Callable[..., None], *arguments: Any) -> None:
        try:
            target(*arguments)
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())

    def _refill(self) -> None:
        """Prepare VMs, and drop those that ended while they waited, until the end."""
        try:
            while not self._closing:
                self._drop_ended()
                if not self._room():
                    self._wait(CHECK_SECONDS)
                    continue
                self._give_head_start()
                if not self._prepare():
                    self._wait(RETRY_SECONDS)
        finally:
            while (vm := self._take()) is not None:
                self._close(vm)

    def _give_head_start(self) -> None:
        """Let a short run that has just claimed a VM end first."""
        deadline = time.monotonic() + HEAD_START_SECONDS
        while self._just_taken and (left := deadline - time.monotonic()) > 0 and not self._closing:
            self._wait(left)  # each claim wakes us
        self._just_taken = False

    def _wait(self, seconds: float) -> None:
        with self._changed:
            if not self._closing:
                self._changed.wait(seconds)

    def _room(self) -> bool:
        """Return whether one more VM is wanted, and fits into the memory."""
        with self._changed:
            idle = list(self._idle)
        return len(idle) < self.size and sum(vm.memory() for vm in idle) + self._largest <= self.memory

    def _drop_ended(self) -> None:
        with self._changed:
            ended = [vm for vm in self._idle if vm.failure() is not None]
            self._idle = [vm for vm in self._idle if vm not in ended]
        for vm in ended:
            self._say(f"an idle VM has ended: {vm.failure()}")
            self._close(vm)

    def _prepare(self) -> bool:
        """Prepare one VM. Return whether that worked, or the pool ends."""
        vm = None
        try:
            self.kind.make_template()
            vm = self.kind.make()
            with self._changed:
                self._all.add(vm)
            vm.prepare(self.kind.key)
            self._largest = vm.memory()
        except (InnkeeperError, RpcError, OSError) as error:
            if vm is not None:
                self._close(vm)
            if not self._closing:
                self._say(f"no VM could be prepared: {error}")
            return False
        with self._changed:
            self._idle.append(vm)
            self._failure = ""
            progress.note(f"{len(self._idle)} of {self.size} VMs idle")
        return True

    def _say(self, text: str) -> None:
        """Print a failure, once if it repeats."""
        if text != self._failure:
            progress.warn(text)
        self._failure = text

    def _take(self) -> Vm | None:
        """Return an idle VM, which is the caller's from here on, or None. The oldest is first."""
        with self._changed:
            vm = self._idle.pop(0) if self._idle else None
            self._just_taken = self._just_taken or vm is not None
            self._changed.notify_all()
        return vm

    def _close(self, vm: Vm) -> None:
        vm.close()
        with self._changed:
            self._all.discard(vm)

    def serve(self, connection: socket.socket) -> None:
        """Serve a connection, which it takes over, in a thread."""
        self._start_thread(self._serve, "claim", connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                pooled.check_peer(connection)
                connection.settimeout(pooled.CLAIM_SECONDS)
                line = read_line(connection, pooled.LINE_MAX)
                if b'"status"' in line:
                    _send(connection, self.status())
                else:
                    self._serve_claim(connection, Claim.decode(line))
            except (InnkeeperError, OSError) as error:
                _send(connection, {"failure": str(error)})

    def _serve_claim(self, connection: socket.socket, claim: Claim) -> None:
        if claim.key != self.kind.key:
            return _send(connection, {"busy": "it has VMs of another kind"})
        while (vm := self._take()) is not None and vm.failure() is not None:
            self._close(vm)
        if vm is None:
            return _send(connection, {"busy": "no VM of it is idle"})
        try:
            with self._counted():
                _send(connection, vm.claim(claim))
                self._await_end(connection, vm)
        except RpcError as error:
            _send(connection, {"failure": str(error)})
        finally:
            self._close(vm)
        return None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._changed:
            self._claimed += 1
        try:
            yield
        finally:
            with self._changed:
                self._claimed -= 1

    def _await_end(self, connection: socket.socket, vm: Vm) -> None:
        """Wait until the claimer goes, or the VM ends, of which the claimer gets the reason."""
        ended = os.pidfd_open(vm.pid)
        watched: list[Any] = [connection, ended]
        try:
            while True:
                readable, _, _ = select.select(watched, [], [], CHECK_SECONDS)
                if connection in readable:
                    return None  # nothing is sent on a lease: this is its end
                reason = vm.failure() or ("the VM has ended" if ended in readable else None)
                if self._closing:
                    reason = "the pool, which ran the VM, was stopped"
                if reason is not None:
                    return _send(connection, {"failure": reason})
        finally:
            os.close(ended)


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    try:
        connection.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        pass  # the claimer has gone, which ends its claim


def run(kind: Kind, size: int, memory: int) -> None:
    """Run the pool until this process is interrupted. Raises InnkeeperError and Interrupted."""
    kind.make_template()  # a `run` in the meantime finds no pool, and does not wait for this
    with pooled.listening() as listener:
        pool = Pool(kind, size, memory)
        try:
            while True:
                pool.serve(listener.accept()[0])
        finally:
            pool.close()
