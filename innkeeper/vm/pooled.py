"""Claim an idle VM from the process that keeps some (`innkeeper pool`), and use it as one's own.

What both ends need is here, the pool itself is `engine.pool`.

The protocol is one line of JSON each way on a unix socket. The claim says what the VM must be, and
which disks and ports it gets. The answer has the VM's state, or why there is none. From then on the
connection is the lease: the pool ends the VM when it is closed, also by the end of this process.
If the VM ends before, the pool sends one more line, the reason, and closes.

Both ends belong to one user, which each of them checks: a claim names files that the pool opens.
"""

import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from innkeeper import files
from innkeeper.dial import connect_unix, listen_unix, read_line
from innkeeper.errors import InnkeeperError
from innkeeper.paths import pool_socket, program_name
from innkeeper.vm import network, registry
from innkeeper.vm.config import Forward, VmConfig
from innkeeper.vm.port_forward_ipv6 import Relay

PROTOCOL = 1
"""To be raised when claims or answers change: the pool may be older than the program that asks."""
LINE_MAX = 64 << 10
"""Longest line in bytes."""
CLAIM_SECONDS = 5.0
"""Seconds that the pool may take to answer. It takes some hundredths."""
END_SECONDS = 5.0
"""Seconds that the pool may take to end a VM."""
LINKED = ("console.log", "qemu.log")
"""Files of the VM that its user keeps when the pool removes it."""


class PoolBusy(InnkeeperError):
    """There is no pool, or it has no idle VM of this kind."""


@dataclass(frozen=True)
class Claim:
    """A request for a VM with this template `key`, these disk files, and these ports."""

    key: str
    disks: tuple[str, ...]
    rules: tuple[Forward, ...]

    def encode(self) -> bytes:
        return json.dumps({"protocol": PROTOCOL, **asdict(self)}).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "Claim":
        """Parse a claim. Raises InnkeeperError for anything else."""
        try:
            known: dict[str, Any] = json.loads(line)
            if known["protocol"] != PROTOCOL:
                raise InnkeeperError(f"the pool speaks protocol {PROTOCOL}, and was asked in {known['protocol']}")
            disks = tuple(str(path) for path in known["disks"])
            rules = tuple(Forward(**rule) for rule in known["rules"])
            return cls(str(known["key"]), disks, rules)
        except (ValueError, KeyError, TypeError) as error:
            raise InnkeeperError(f"not a claim: {error}") from error


class PooledVm:
    """A VM that the pool runs and this process uses, as a context manager. It ends with the `with`.

    It has what `engine.session` uses of a VirtualMachine. `key` is that of its template.
    """

    def __init__(self, lease: socket.socket, key: str, config: VmConfig, entry: registry.Entry, address: str) -> None:
        self.config = config
        self.key = key
        self.entry = entry
        self.folder = entry.folder
        self.forwards = config.forwards
        self._lease = lease
        self._address = address
        self._relays: list[Relay] = []
        self._reason: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def console_path(self) -> Path:
        return self.folder / "console.log"

    def address(self, port: int) -> str:
        """Return the address of the guest's vsock `port`, for `innkeeper.client.connect`."""
        return self._address.replace("PORT", str(port))

    def failure(self) -> InnkeeperError | None:
        """Return the error of a failed VM, or None."""
        if self._reason is None and _readable(self._lease):
            try:
                self._reason = str(json.loads(read_line(self._lease, LINE_MAX))["failure"])
            except (OSError, ValueError, KeyError, TypeError):
                self._reason = "the pool, which ran the VM, has ended"
        return None if self._reason is None else InnkeeperError(self._reason)

    def stop(self, timeout: float) -> int:
        """End the VM. It has no folder of the host whose data it could still have to write."""
        self._give_back(timeout)
        return 0

    def abandon(self) -> None:
        """End the VM, so that another may start in the folder."""
        self._end()
        _unlink(self.folder)

    def _end(self) -> None:
        for relay in self._relays:
            relay.close()
        self._relays = []
        if self.forwards:
            self._give_back(END_SECONDS)
        self._lease.close()

    def _give_back(self, seconds: float) -> None:
        """Give the lease back, and wait until the VM is gone, so that its ports are free."""
        try:
            self._lease.shutdown(socket.SHUT_WR)
            self._lease.settimeout(seconds)
            while self._lease.recv(LINE_MAX):
                pass
        except OSError:
            pass  # it is gone, or so busy that the ports are free a little later

    def close(self) -> None:
        """End the VM and release the folder."""
        self._end()
        if self.entry.keep:
            self.entry.update(status="ended", pid=None, address=None)
        self.entry.release()


def claim(config: VmConfig, key: str, entry: registry.Entry) -> PooledVm:
    """Return a VM from the pool with the disks and ports of `config`, ready for a container.

    Raises PoolBusy if there is none of this kind, and InnkeeperError and OSError if one that was
    there cannot be used.
    """
    if config.shares:
        raise PoolBusy("a VM of the pool takes no shares")
    lease = _connect()
    listeners: Sequence[tuple[socket.socket, int]] = ()
    try:
        resolved = network.resolve_ports(config.forwards)
        listeners = resolved.listeners
        disks = tuple(str(disk.path.absolute()) for disk in config.disks)
        answer = request(lease, Claim(key, disks, resolved.rules).encode())
        if "busy" in answer:
            raise PoolBusy(str(answer["busy"]))
        if "failure" in answer:
            raise InnkeeperError(str(answer["failure"]))
        state = dict(answer["state"])
        _link(Path(answer["folder"]), entry.folder)
        forwards = [str(forward) for forward in resolved.forwards]
        entry.update(**{**state, "status": "running", "owner": os.getpid(), "forwards": forwards})
        vm = PooledVm(lease, key, config, entry, state["address"])
    except BaseException:
        lease.close()
        for listener, _ in listeners:
            listener.close()
        _unlink(entry.folder)  # another VM may start in it
        raise
    vm.forwards = resolved.forwards
    vm._relays = [Relay(listener, port) for listener, port in listeners]
    return vm


def _link(source: Path, folder: Path) -> None:
    """Give the logs of the VM, which the pool removes with it, a name in `folder` as well."""
    for name in LINKED:
        os.link(source / name, folder / name)


def _unlink(folder: Path) -> None:
    for name in LINKED:
        (folder / name).unlink(missing_ok=True)


def status() -> dict[str, Any] | None:
    """Return what the pool says of itself, or None if there is none.

    Raises InnkeeperError and OSError.
    """
    try:
        sock = _connect()
    except PoolBusy:
        return None
    with sock:
        return request(sock, b'{"status": true}\n')


def request(sock: socket.socket, line: bytes) -> dict[str, Any]:
    """Send a line and return the answer. Raises InnkeeperError and OSError."""
    sock.settimeout(CLAIM_SECONDS)
    sock.sendall(line)
    try:
        answer = json.loads(read_line(sock, LINE_MAX))
    except ValueError as error:
        raise InnkeeperError(f"the pool's answer is not JSON: {error}") from error
    if not isinstance(answer, dict):
        raise InnkeeperError(f"the pool answered {answer!r}")
    return answer


def _connect() -> socket.socket:
    try:
        sock = connect_unix(str(pool_socket()), CLAIM_SECONDS)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise PoolBusy("there is no pool") from error
    try:
        check_peer(sock)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def listening() -> Iterator[socket.socket]:
    """Context manager: yield the socket of the pool. Raises InnkeeperError if there is a pool."""
    path = pool_socket()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        lock = files.lock(path.with_suffix(".lock"), wait=False)
    except BlockingIOError:
        raise InnkeeperError("a pool of this user is running already", hint=f"see {program_name()} doctor") from None
    try:
        path.unlink(missing_ok=True)  # of one that was killed
        before = os.umask(0o177)
        try:
            listener = listen_unix(path)
        finally:
            os.umask(before)
        with listener:
            try:
                yield listener
            finally:
                path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def check_peer(sock: socket.socket) -> None:
    """Raise InnkeeperError unless the socket's peer is this user (unix(7), SO_PEERCRED)."""
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid != os.geteuid():
        raise InnkeeperError(f"the other end of the pool's socket is user {uid}")


def _readable(sock: socket.socket) -> bool:
    import select

    return bool(select.select([sock], [], [], 0)[0])
