"""The pool and those who claim its VMs, with processes that only wait in place of QEMU."""

import json
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from innkeeper.dial import connect_unix, listen_unix
from innkeeper.engine import pool
from innkeeper.engine.pool import Kind, Pool
from innkeeper.errors import InnkeeperError
from innkeeper.paths import pool_socket
from innkeeper.vm import Disk, Forward, Share, SharedPath, VmConfig, pooled, registry
from innkeeper.vm.network import PortError
from innkeeper.vm.pooled import Claim, PoolBusy, PooledVm
from tests.eventually import eventually, pause

KEY = "0123abcd"
MIB = 1 << 20


class FakeVm:
    """A process that waits, with logs in a folder. `broken`: its claim fails."""

    def __init__(self, folder: Path, broken: bool = False) -> None:
        folder.mkdir()
        self.folder = folder
        self.broken = broken
        self.claims: list[Claim] = []
        self.closed = False
        for name in pooled.LINKED:
            (folder / name).write_text(f"{name} of {folder.name}\n")
        self.process = subprocess.Popen(["sleep", "1000"])

    @property
    def pid(self) -> int:
        return self.process.pid

    def prepare(self, key: str) -> None:
        assert key == KEY

    def claim(self, claim: Claim) -> dict[str, Any]:
        self.claims.append(claim)
        if self.broken:
            raise InnkeeperError("QEMU took no command")
        state = {"pid": self.pid, "address": f"hybrid://{self.folder}/agent.sock:PORT", "memory_mib": 2048}
        return {"folder": str(self.folder), "generation": 2, "state": state}

    def failure(self) -> str | None:
        return None if self.process.poll() is None else "QEMU was killed by signal 9"

    def memory(self) -> int:
        return 100 * MIB

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.closed = True


class Running:
    """A pool that listens, and all VMs that it has made."""

    def __init__(self, folder: Path, size: int, memory: int) -> None:
        self.folder = folder
        self.vms: list[FakeVm] = []
        self.broken = False
        self.pool = Pool(Kind(KEY, self._make, lambda: None), size, memory)

    def _make(self) -> FakeVm:
        self.vms.append(FakeVm(self.folder / f"vm{len(self.vms)}", self.broken))
        return self.vms[-1]

    def idle(self, number: int) -> None:
        eventually(lambda: self.pool.status()["idle"] == number, lambda: str(self.pool.status()))


@contextmanager
def serving(folder: Path, size: int = 1, memory: int = 10_000 * MIB) -> Iterator[Running]:
    with pooled.listening() as listener:
        running = Running(folder, size, memory)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    running.pool.serve(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield running
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            running.pool.close()
            assert all(vm.closed for vm in running.vms)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(pool, "HEAD_START_SECONDS", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def config(tmp_path: Path) -> VmConfig:
    for name in ("kernel", "root", "image", "scratch"):
        (tmp_path / name).write_text(name)
    disks = (Disk(tmp_path / "image", read_only=True), Disk(tmp_path / "scratch"))
    return VmConfig(kernel=tmp_path / "kernel", root=tmp_path / "root", disks=disks)


@contextmanager
def claimed(config: VmConfig, key: str = KEY) -> Iterator[PooledVm]:
    entry = registry.create()
    try:
        with pooled.claim(config, key, entry) as vm:
            yield vm
    finally:
        entry.release()


def test_a_claimer_has_the_processors_first(tmp_path: Path, config: VmConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No VM is prepared while a short run may still go on, and that does not hold up the end of the pool."""
    monkeypatch.setattr(pool, "HEAD_START_SECONDS", 3600.0)
    with serving(tmp_path) as running:
        running.idle(1)
        with claimed(config):
            pause(10 * pool.CHECK_SECONDS, "the pool would prepare the next VM meanwhile")
            assert len(running.vms) == 1


def refusal(config: VmConfig, key: str = KEY) -> InnkeeperError:
    with pytest.raises(InnkeeperError) as caught, claimed(config, key):
        pass
    return caught.value


def test_a_claim_gets_a_vm_and_its_end_ends_that(tmp_path: Path, config: VmConfig) -> None:
    with serving(tmp_path) as running:
        running.idle(1)
        with claimed(config) as vm:
            first = running.vms[0]
            assert vm.address(1024) == f"hybrid://{first.folder}/agent.sock:1024"
            assert vm.console_path.read_text() == "console.log of vm0\n"
            assert first.claims == [Claim(KEY, (str(tmp_path / "image"), str(tmp_path / "scratch")), ())]
            assert vm.failure() is None
            (record,) = registry.list_vms()
            assert (record.state["pid"], record.state["owner"], record.state["memory_mib"]) == (first.pid, os.getpid(), 2048)
            running.idle(1)
            assert running.pool.status()["claimed"] == 1
        eventually(lambda: first.closed)
        assert not running.vms[1].closed
    assert not registry.list_vms()


def test_logs_stay_when_the_vm_is_gone(tmp_path: Path, config: VmConfig) -> None:
    with serving(tmp_path) as running:
        running.idle(1)
        with claimed(config) as vm:
            for name in pooled.LINKED:
                (running.vms[0].folder / name).unlink()
            assert vm.console_path.read_text() == "console.log of vm0\n"


def test_the_end_of_the_vm_is_a_failure(tmp_path: Path, config: VmConfig) -> None:
    with serving(tmp_path) as running:
        running.idle(1)
        with claimed(config) as vm:
            os.kill(running.vms[0].pid, signal.SIGKILL)
            assert "QEMU was killed by signal 9" in str(eventually(vm.failure))
            assert vm.failure() is not None


def test_the_end_of_the_pool_is_a_failure(tmp_path: Path, config: VmConfig) -> None:
    with serving(tmp_path) as running:
        running.idle(1)
        entry = registry.create()
        vm = pooled.claim(config, KEY, entry)
        running.pool.close()
        assert "the pool, which ran the VM, was stopped" in str(eventually(vm.failure))
        vm.close()
    with pytest.raises(PoolBusy, match="there is no pool"), claimed(config):
        pass


def test_a_lease_that_is_cut_is_a_failure(config: VmConfig) -> None:
    ours, theirs = socket.socketpair()
    with PooledVm(ours, KEY, config, registry.create(), "hybrid:///x:PORT") as vm:
        assert vm.failure() is None
        theirs.close()
        assert str(vm.failure()) == "the pool, which ran the VM, has ended"


def test_there_may_be_no_pool(config: VmConfig, cache: Path) -> None:
    assert pooled.status() is None
    assert isinstance(refusal(config), PoolBusy)
    cache.mkdir(exist_ok=True)
    listen_unix(pool_socket()).close()  # as a pool that was killed leaves it
    assert pooled.status() is None
    assert isinstance(refusal(config), PoolBusy)


def test_vms_of_another_kind_or_none_are_no_failures(tmp_path: Path, config: VmConfig) -> None:
    with serving(tmp_path, memory=1) as running:
        assert str(refusal(config, "another")) == "it has VMs of another kind"
        assert str(refusal(config)) == "no VM of it is idle"
        assert not running.vms, "one VM takes more than a byte"
    shared = VmConfig(kernel=config.kernel, root=config.root, shares=(Share("x", (SharedPath("", tmp_path),)),))
    assert isinstance(refusal(shared), PoolBusy)


def test_a_vm_that_cannot_be_used_is_replaced(tmp_path: Path, config: VmConfig) -> None:
    with serving(tmp_path) as running:
        running.idle(1)
        running.vms[0].broken = True
        failed = refusal(config)
        assert (str(failed), isinstance(failed, PoolBusy)) == ("QEMU took no command", False)
        running.idle(1)
        assert (running.vms[0].closed, len(running.vms)) == (True, 2)
        with claimed(config) as vm:
            assert vm.failure() is None


def test_an_idle_vm_that_ends_is_replaced(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        running.idle(1)
        running.vms[0].kill()
        eventually(lambda: running.vms[0].closed)
        running.idle(1)
        assert len(running.vms) == 2


def test_memory_limits_the_number(tmp_path: Path) -> None:
    with serving(tmp_path, size=5, memory=250 * MIB) as running:
        running.idle(2)
        assert running.pool.status()["memory"] == 200 * MIB
        assert not running.pool._room()


def test_many_claims_at_once_get_a_vm_each_or_none(tmp_path: Path, config: VmConfig) -> None:
    def attempt(_: int) -> str:
        try:
            with claimed(config) as vm:
                return vm.address(1)
        except PoolBusy:
            return ""

    with serving(tmp_path, size=3) as running:
        running.idle(3)
        with ThreadPoolExecutor(8) as workers:
            got = [address for address in workers.map(attempt, range(8)) if address]
        assert len(got) >= 3
        assert len(set(got)) == len(got)
        assert all(len(vm.claims) <= 1 for vm in running.vms)
        running.idle(3)


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b'{"protocol": 0}\n', b'{"protocol": 1, "key": "x"}\n', b"not json\n", b"x" * (pooled.LINE_MAX + 1)]
)
def test_what_is_no_claim_is_refused_and_costs_no_vm(tmp_path: Path, line: bytes) -> None:
    with serving(tmp_path) as running:
        running.idle(1)
        with connect_unix(str(pool_socket())) as sock:
            assert "failure" in pooled.request(sock, line)
        running.idle(1)
        assert not running.vms[0].closed


def test_another_user_is_refused(tmp_path: Path, config: VmConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as running:
        running.idle(1)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert "is user" in str(refusal(config))
        assert running.pool.status()["idle"] == 1


def test_a_port_in_use_is_the_users_failure(tmp_path: Path, config: VmConfig) -> None:
    with serving(tmp_path) as running, socket.create_server(("127.0.0.1", 0)) as taken:
        running.idle(1)
        forward = Forward("tcp", "127.0.0.1", taken.getsockname()[1], 80)
        from dataclasses import replace

        assert isinstance(refusal(replace(config, forwards=(forward,))), PortError)
        free = replace(config, forwards=(replace(forward, host_port=0),))
        with claimed(free) as vm:
            assert vm.forwards[0].host_port > 0
            assert eventually(lambda: [v for v in running.vms if v.claims])[0].claims[0].rules == vm.forwards


def test_one_pool_at_a_time_and_its_socket_is_private(tmp_path: Path) -> None:
    with serving(tmp_path):
        assert stat.S_IMODE(pool_socket().stat().st_mode) == 0o600
        with pytest.raises(InnkeeperError, match="is running already"), pooled.listening():
            pass
    assert not pool_socket().exists()


def test_a_claim_survives_the_wire() -> None:
    claim = Claim(KEY, ("/a b", "/c\n"), (Forward("udp", "127.0.0.1", 53, 5353),))
    assert Claim.decode(claim.encode()) == claim
    assert json.loads(claim.encode())["protocol"] == pooled.PROTOCOL
