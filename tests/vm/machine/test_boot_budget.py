"""What PID 1 imports before it listens, as the frozen agent in a guest tells it, is what the list in the tree says."""

import pytest

from innkeeper import paths
from innkeeper.client import Agent, connect
from innkeeper.engine.host import virtual_machine
from innkeeper.vm import AGENT_PORT
from tests.vm.guest import vm_config

pytestmark = pytest.mark.vm

TIMEOUT = 120


def listed(*, virtio_serial: bool) -> set[str]:
    """The modules of agent/startup-modules.txt: a name, then its reason, which may be that the ports are not reached by vsock."""
    lines = (paths.project_root() / "agent" / "startup-modules.txt").read_text().splitlines()
    entries = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert all(len(entry) == 2 for entry in entries), "each module has a reason"
    return {name for name, reason in entries if virtio_serial or not reason.startswith("virtio-serial:")}


def test_modules_before_listening() -> None:
    with virtual_machine(vm_config()) as vm:
        vm.start()
        vm.wait_ready(TIMEOUT)
        with connect(vm.address(AGENT_PORT), 30) as client:
            timeline = Agent(client).boot_timeline()
        virtio_serial = not vm.address(AGENT_PORT).startswith("vsock:")
        vm.kill()
    assert set(timeline.startup_modules) == listed(virtio_serial=virtio_serial)
    assert timeline.threads == 1
    stages = ["pid1", "listening", "first check answered", "booted", "policy loaded", "loaded"]
    assert [stage.name for stage in timeline.stages] == stages
