"""What `kata install` lays out, used by Kata's shim: with only that changed which a machine without KVM needs."""

import re
from pathlib import Path

from innkeeper.kata import Plan, install, uninstall
from tests.interop.node import HARNESS, Node, virtiofsd
from tests.interop.test_shim import pytestmark as pytestmark
from tests.vm.guest import artifacts

EMULATION = {
    "kernel_params": 'kernel_params = "agent.hotplug_timeout=30"\nmachine_accelerators = "accel=tcg"\ndisable_vhost_net = true',
    "default_maxvcpus": "default_maxvcpus = 1",
    "dial_timeout": "dial_timeout = 300",
    "create_container_timeout": "create_container_timeout = 600",
    "static_sandbox_resource_mgmt": "static_sandbox_resource_mgmt = true",
}
"""Key -> its line. Memory that is plugged in cannot be shared with vhost-user's processes, which stand in for vhost-vsock."""


def test_the_shim_takes_the_installed_configuration(node: Node) -> None:
    plan = Plan.of(node.folder / "installed", HARNESS.parent / "qemu-tcg", virtiofsd())
    built = artifacts()
    install(plan, (built.bzImage, built.disk, built.manifest))
    text = plan.configuration.read_text()
    for key, line in EMULATION.items():
        text, count = re.subn(rf"^{key} = .*$", line, text, flags=re.MULTILINE)
        assert count == 1, key
    configuration = node.folder / "emulated.toml"
    configuration.write_text(text)
    done = node.run("installed", "uname", "-r", configuration=configuration)
    assert done.stdout.strip().endswith("-innkeeper"), done.stderr
    assert uninstall(plan.prefix) == []
    assert not Path(plan.prefix).exists()
