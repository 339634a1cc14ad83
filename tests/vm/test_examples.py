"""The guests of `examples/`: each is resolved, and those that compile no kernel are built and booted."""

import json
from pathlib import Path

import pytest

from innkeeper.guest import contents, sbom
from innkeeper.guest.config_file import read
from innkeeper.guest.pipeline import build_guest
from tests.images import busybox_image
from tests.needs import needs
from tests.paths import ROOT
from tests.vm.command import detached, innkeeper, succeed

pytestmark = [pytest.mark.vm, needs("root")]

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/guest.toml"))


def example(name: str) -> str:
    return str(EXAMPLES / name / "guest.toml")


def test_each_is_resolved_without_building_anything() -> None:
    assert NAMES == ["debug", "kernel-option", "minimal", "policy-and-ca"]
    for name in NAMES:
        document = json.loads(succeed("build", "-f", example(name), "--json"))
        assert {step["name"] for step in document["steps"]} >= {"agent", "rootfs", "manifest"}
        assert succeed("build", "-f", example(name), "--print").startswith('architecture = "x86_64"\n')


def test_a_policy_and_a_file_are_in_force_and_in_the_bill_of_materials(tmp_path: Path) -> None:
    succeed("build", "-f", example("policy-and-ca"), "--sbom", "-o", str(tmp_path))
    made = json.loads((tmp_path / "sbom.cdx.json").read_text())
    found = sbom.files(made)
    assert [name for name, origin in found.items() if not origin] == [], "files without an origin"
    with contents.unpacked(tmp_path / "rootfs.erofs") as folder:
        entries = contents.entries(tmp_path / "rootfs.erofs", folder)
    assert {f"/{name}" for name, entry in entries.items() if entry.kind == "file"} == {name for name in found if name.startswith("/")}
    assert found["/etc/ssl/certs/company-ca.pem"] == found["/etc/innkeeper/policy.toml"] == "guest.toml"
    with detached(busybox_image(), "sleep", "1000", options=("--guest", example("policy-and-ca"))) as id:
        assert succeed("exec", id, "id").startswith("uid=0")
        refused = innkeeper("exec", id, "cat", "/etc/hostname")
        assert b"ExecProcess is blocked by policy: rule 'exec' of policy 'example'" in refused.stderr


def test_a_debug_guest_has_a_shell_and_packages_of_debian() -> None:
    with detached(busybox_image(), "sleep", "1000", options=("--guest", example("debug"))) as id:
        assert "strace -- version" in succeed("shell", id, "strace", "--version")
        assert 'log_level = "debug"' in succeed("shell", id, "cat", "/etc/innkeeper/agent.toml")
        assert "loglevel=7" in succeed("shell", id, "cat", "/proc/cmdline")


def test_a_minimal_guest_runs_a_container_and_is_smaller(tmp_path: Path) -> None:
    assert succeed("run", "--rm", "--guest", example("minimal"), busybox_image(), "echo", "ran") == "ran\n"
    build_guest(read([EXAMPLES / "minimal" / "guest.toml"]), tmp_path / "minimal")
    assert {path.name for path in (tmp_path / "minimal").iterdir()}.isdisjoint({"innkeeper.img", "innkeeper.initrd"})
    succeed("build", "--kernel", "debian", "-o", str(tmp_path / "default"))
    done = innkeeper("image", "diff", "--json", str(tmp_path / "default"), str(tmp_path / "minimal"))
    assert done.returncode == 1
    difference = json.loads(done.stdout)
    assert {"usr/lib/innkeeper/gateway", "usr/lib/innkeeper/_internal/libstdc++.so.6"} <= difference["files"]["removed"].keys()
    assert not difference["files"]["added"] and not any(difference["kernel"].values())
    assert all(name.startswith("gateway: ") for name in difference["modules"]["removed"])


@pytest.mark.long
def test_a_kernel_with_more_options_boots(tmp_path: Path) -> None:
    succeed("build", "-f", example("kernel-option"), "-o", str(tmp_path))
    assert "CONFIG_E1000E=y" in (tmp_path / "config").read_text()
    kinds = succeed("run", "--rm", "--guest", example("kernel-option"), busybox_image(), "cat", "/proc/filesystems")
    assert "squashfs" in kinds
