"""What a guest does before it is saved as a template, and first of all in a clone. The kernel's part is a set of stand-ins."""

import ast
import importlib
import time
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import Refused, WrongState
from agent.event_log import RESUMED, Events
from agent.loop import run
from agent.service import clone
from innkeeper.wire.pb.empty_pb2 import Empty
from innkeeper.wire.pb.guest_pb2 import ResumeCloneRequest, ResumeCloneResponse
from tests.paths import ROOT

ENTROPY = bytes(range(64))
NOT_LOADED = {
    "agent.container.step_times": "for tests",
    "agent.policy": "only a guest with a policy has it, and it is loaded before a template is made",
    "agent.vsock_services": "opened at the start, if at all",
    "agent.ptp_clock": "started at the boot",
    "agent.ready_notify": "called at the boot",
    "agent.standalone": "not in a guest",
    "agent.pod.streams": "only where the settings ask for passed descriptors",
    "agent.pod.shell": "only a debug guest has a shell",
    "agent.service.gateway": "the process that answers gRPC starts it in the clone that is called",
    "agent.service.iptables": "an ordinary container has no use for it",
    "agent.service.diagnostics": "an ordinary container has no use for it",
    "agent.storage.verity": "an ordinary container has no use for it",
    "agent.linux.dm": "an ordinary container has no use for it",
}
"""Modules that are imported late, and why PrepareTemplate leaves them out."""
AT_THE_START = (
    "agent.config",
    "agent.bootstrap",
    "agent.early_boot",
    "agent.lsm",
    "agent.virtio_serial",
    "agent.linux.reboot",
    "agent.service.clone",
)


class Sandbox:
    def __init__(self, id: str = "", containers: int = 0) -> None:
        self.id = id
        self.events = Events()
        self.containers = SimpleNamespace(by_id=dict.fromkeys(range(containers)))


class Kernel:
    """Notes what is asked of it, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.calls: list[tuple[object, ...]] = []
        (folder / "boot_id").write_text("4d0b-id\n")
        monkeypatch.setattr(clone, "GENERATION", str(folder / "run" / "generation"))
        monkeypatch.setattr(clone, "BOOT_ID", str(folder / "boot_id"))
        monkeypatch.setattr(clone, "add_entropy", lambda data: self.calls.append(("entropy", data)))
        monkeypatch.setattr(time, "clock_settime_ns", lambda clock, ns: self.calls.append(("clock", clock, ns)))
        monkeypatch.setattr(clone, "_set_hardware_address", lambda *wanted: self.calls.append(("address", *wanted)))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    return Kernel(monkeypatch, tmp_path)


def call(handler: Any, sandbox: Sandbox, request: object) -> Any:
    async def main() -> Any:
        work: Coroutine[Any, Any, Any] = handler(sandbox, request)
        return await work

    return run(main())


def request(**fields: Any) -> ResumeCloneRequest:
    return ResumeCloneRequest(**{"entropy": ENTROPY, "realtime_ns": 12345, "generation": 5, **fields})


def test_a_clone_becomes_one_of_its_own_entropy_first(kernel: Kernel, tmp_path: Path) -> None:
    sandbox = Sandbox()
    address = ResumeCloneRequest.HardwareAddress(device="eth0", address="52:54:00:AA:bb:01")
    answer: ResumeCloneResponse = call(clone.resume_clone, sandbox, request(hardware_addresses=[address]))
    assert kernel.calls == [
        ("entropy", ENTROPY),
        ("clock", time.CLOCK_REALTIME, 12345),
        ("address", "eth0", "52:54:00:AA:bb:01"),
    ]
    assert (tmp_path / "run" / "generation").read_text() == "5\n"
    assert (answer.generation, answer.boot_id) == (5, "4d0b-id")
    assert abs(answer.realtime_ns - time.time_ns()) < 60e9
    [event] = call(lambda sandbox, _: sandbox.events.after(0), sandbox, None)
    assert (event.kind, event.generation) == (RESUMED, 5)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"entropy": bytes(31)}, "entropy"),
        ({"generation": 0}, "generation"),
        ({"hardware_addresses": [ResumeCloneRequest.HardwareAddress(device="eth0", address="52:54")]}, "hardware_addresses.address"),
        (
            {"hardware_addresses": [ResumeCloneRequest.HardwareAddress(device="../x", address="52:54:00:aa:bb:01")]},
            "hardware_addresses.device",
        ),
    ],
)
def test_what_would_leave_twins_is_refused_before_anything_is_done(kernel: Kernel, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refused:
        call(clone.resume_clone, Sandbox(), request(**fields))
    assert refused.value.field == field
    assert kernel.calls == []


def test_a_generation_is_used_once(kernel: Kernel) -> None:
    call(clone.resume_clone, Sandbox(), request(generation=5))
    for again in (4, 5):
        with pytest.raises(Refused, match=f"{again} is not above 5"):
            call(clone.resume_clone, Sandbox(), request(generation=again))
    call(clone.resume_clone, Sandbox(), request(generation=6))


def test_programs_random_numbers_are_seeded_anew(kernel: Kernel) -> None:
    import random

    random.seed(1)
    first = random.random()
    random.seed(1)
    call(clone.resume_clone, Sandbox(), request())
    assert random.random() != first


def test_the_guest_has_no_machine_id() -> None:
    """Clones would share it: a root file system that ships one needs a step in ResumeClone."""
    files = [path for path in (ROOT / "rootfs").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if "machine-id" in path.name or b"machine-id" in path.read_bytes()]


@pytest.mark.parametrize("sandbox", [Sandbox(id="pod"), Sandbox(containers=1)])
def test_a_guest_in_use_is_no_template(sandbox: Sandbox) -> None:
    with pytest.raises(WrongState):
        call(clone.prepare_template, sandbox, Empty())


def test_the_modules_of_a_template_exist() -> None:
    for name in clone.LATE_MODULES:
        importlib.import_module(name)


def test_every_module_that_is_imported_late_is_in_a_template_or_has_a_reason() -> None:
    late = {
        name
        for path in (ROOT / "agent").rglob("*.py")
        if path.parts[-2] not in ("oci", "gateway", "commands")
        for name in _late_imports(path)
    }
    late = {name for name in late if name.startswith("agent.") and (ROOT / f"{name.replace('.', '/')}.py").exists()}
    known = {*clone.LATE_MODULES, *AT_THE_START, *_at_the_top()}
    unexplained = {name for name in late - known if not any(name == one or name.startswith(f"{one}.") for one in NOT_LOADED)}
    assert not unexplained


def _late_imports(path: Path) -> set[str]:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
    return {name for node in found if node.module for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))}


def _at_the_top() -> set[str]:
    """The modules that the loaded agent has anyway: those of its service, and what they import."""
    import subprocess
    import sys

    code = "import sys, agent.bootstrap as b\nfor name in b.SERVICE_MODULES: __import__(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())
