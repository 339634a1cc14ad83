"""A port of the host that is in use is the only thing a user hears of: before any progress of a start, which would seem to fail."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from innkeeper import progress
from innkeeper.engine import forks, records, session
from innkeeper.vm import CloneableVm, Forward, HostPrograms, VirtualMachine, VmConfig, registry, snapshot
from innkeeper.vm.network import PortError


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path))
    monkeypatch.setattr(progress, "_quiet", False)


def config(*ports: int) -> VmConfig:
    return VmConfig(Path(__file__), Path(__file__), forwards=tuple(Forward("tcp", "127.0.0.1", port, 80) for port in ports))


def test_a_boot(busy: int, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        VirtualMachine(config(busy), cast(HostPrograms, None)) as vm,
        pytest.raises(PortError, match=f"port {busy}/tcp of the host is in use"),
    ):
        session._booted(vm, 1)
    assert capsys.readouterr().err == ""


def test_a_fork(busy: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Restored(CloneableVm):
        def __init__(self, given: VmConfig, host: HostPrograms, entry: registry.Entry, _: Path) -> None:
            super().__init__(given, host, entry)

        def check_key(self, key: str) -> None:
            assert key == "key"

    facts: dict[str, Any] = {"status": "running", "started": None}
    document = {"facts": facts, "guest_id": "1", "container": "2", "key": "key"}
    monkeypatch.setattr(forks, "Snapshot", lambda *_: SimpleNamespace(document=lambda: document))
    monkeypatch.setattr(forks, "RestoredVm", Restored)
    monkeypatch.setattr(snapshot, "configuration", lambda *_: config(busy))
    for name in (snapshot.SCRATCH, records.SPEC):
        (tmp_path / name).write_bytes(b"{}")
    fork = forks.Fork(folder=tmp_path, host=cast(HostPrograms, None), name="", remove=True, ports=())
    with pytest.raises(PortError, match="in use"), forks.opened(fork):
        pass
    assert capsys.readouterr().err == ""


def test_ports_are_taken_once() -> None:
    """Port 0 is a free one: what `take_ports` chose is what the VM gets."""
    with VirtualMachine(config(0, 0), cast(HostPrograms, None)) as vm:
        rules = vm.take_ports()
        assert len({forward.host_port for forward in rules} - {0}) == 2
        assert vm.take_ports() == rules == vm.forwards
        vm.end()
        assert vm.take_ports() != rules
