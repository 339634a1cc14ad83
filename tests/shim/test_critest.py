"""critest against runc and our shim, under one containerd: as many checks pass as with runc, but for those in `critest.toml`."""

import os
import re
import signal
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.eventually import poll
from tests.needs import needs
from tests.shim import critest, critest_images
from tests.shim.containerds import of_go_module
from tests.shim.critest import FAILED, PASSED, Check
from tests.shim.node import Node, remaining, running_node
from tests.shim.test_cri import pytestmark as of_pods

pytestmark = [*of_pods, needs("docker-registry", "skopeo", "buildah", "mmdebstrap", "gcc", "runc", "mke2fs")]

CONFIGURATION = """
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "@DIR@/certs.d"
[plugins."io.containerd.nri.v1.nri"]
disable = false
socket_path = "@DIR@/nri.sock"
plugin_path = "@DIR@/nri"
plugin_config_path = "@DIR@/nri"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
PORT_MAPPING = {"type": "portmap", "capabilities": {"portMappings": True}}
RUNC, OURS = "runc", "template"
"""The second is the handler whose VMs start from a template."""
PROCESSES = 2
"""Checks at a time. critest runs those that it calls serial alone."""
TABLE = Path(__file__).with_name("critest.toml")
AT_LEAST = 100
"""So many checks pass with runc: what did not run is not compared."""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with runc and our shim, the images of critest, and a template."""
    containerd = of_go_module()
    programs = [containerd.daemon.with_name("containerd-shim-runc-v2")]
    with (
        critest_images.registry(tmp_path_factory.mktemp("registry")) as address,
        running_node(containerd, configuration=CONFIGURATION, programs=programs, plugins=[PORT_MAPPING]) as node,
    ):
        critest_images.mirror(node.folder, address)
        node.make_template()
        yield node


def test_as_many_checks_pass_as_with_runc(judged: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All checks run with both handlers. The difference is what the table has, and nothing stays. What came of them is printed."""
    table = {group: {f"[k8s.io] {name}": why for name, why in listed.items()} for group, listed in tomllib.loads(TABLE.read_text()).items()}
    before = remaining(judged, set())
    found = {RUNC: critest.run(judged, RUNC, tmp_path, processes=PROCESSES)}
    end_shims_of_runc(judged)
    found[OURS] = critest.run(judged, OURS, tmp_path, processes=PROCESSES)
    for pod in judged.crictl("pods", "-q", "--no-trunc").split():  # those of checks that failed, or were skipped half-way
        judged.crictl("rmp", "--force", pod)
    judged.groups |= {("k8s.io", id) for id in re.findall(r'returns (?:sandbox|container) id \\?"([0-9a-f]{64})', judged.log.read_text())}
    assert remaining(judged, before) == set()
    runc, ours = ({name: check for name, check in found[handler].items() if name not in table["by_chance"]} for handler in (RUNC, OURS))
    reasons = table["not_in_a_vm"]
    with capsys.disabled():
        print(f"\n{report(found, reasons)}")
    assert set(runc) == set(ours)
    assert counted(runc, PASSED) > AT_LEAST
    assert {name for name, check in runc.items() if check.state == FAILED} <= set(table["left_out"]), failures(runc)
    assert {name for name, check in runc.items() if check.state == PASSED and ours[name].state != PASSED} == set(reasons) & set(runc), (
        failures(ours)
    )
    assert {name for name, check in ours.items() if check.state == FAILED} <= {*reasons, *table["left_out"]}, failures(ours)
    stale = {name for name in table["left_out"] if name in runc and PASSED in (runc[name].state, ours[name].state)}
    assert stale == set()


def end_shims_of_runc(node: Node) -> None:
    """End the shims that are left of runc's run. Seen once in some twenty runs: the pod is gone, and its shim is not."""
    poll(lambda: not shims_of_runc(node), 20)
    for pid in shims_of_runc(node):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def shims_of_runc(node: Node) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            program, *words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
            if program.endswith("/containerd-shim-runc-v2") and f"{node.folder}/c.sock" in words:
                found.append(int(process.name))
    return found


def counted(checks: Mapping[str, Check], state: str) -> int:
    return sum(check.state == state for check in checks.values())


def failures(checks: Mapping[str, Check]) -> dict[str, str]:
    return {name: check.message[:1000] for name, check in checks.items() if check.state != PASSED}


def report(found: Mapping[str, Mapping[str, Check]], reasons: Mapping[str, str]) -> str:
    """Return the table: passes of each handler, and why they differ."""
    lines = [
        f"critest, handler {handler}: {counted(checks, PASSED)} of {len(checks)} checks passed, {counted(checks, FAILED)} failed, "
        f"{sum(check.seconds for check in checks.values()):.0f} s of checks"
        for handler, checks in found.items()
    ]
    return "\n".join([*lines, *(f"  {name}: {why}" for name, why in reasons.items() if name in found[OURS])])
