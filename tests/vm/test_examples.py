"""The guests of `examples/`: each is resolved, and those that compile no kernel are built and booted."""

import json
import os
import shutil
from pathlib import Path

import pytest
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from innkeeper import paths
from innkeeper.errors import InnkeeperError
from innkeeper.guest import additions, contents, sbom, spdx
from innkeeper.guest.config import Guest, KernelPart
from innkeeper.guest.config_file import read
from innkeeper.guest.pipeline import build_guest
from innkeeper.guest.store import Store
from tests.images import busybox_image
from tests.needs import needs
from tests.paths import ROOT
from tests.vm.command import detached, innkeeper, succeed

pytestmark = [pytest.mark.vm, needs("root")]

COMPILED = 3600
"""Seconds after which a build that compiles a kernel counts as hung: it takes ten minutes on an idle host."""
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/guest.toml"))


ADDED = """
[[files]]
path = "/etc/secret"
text = "s"
mode = "0600"
owner = "1000:1001"
[[files]]
path = "/etc/hosts"
text = "127.0.0.1 localhost"
replace = true
[[files]]
path = "/bin/tool"
text = "#!/bin/sh"
mode = "4755"
[[files]]
path = "/srv/data"
folder = true
mode = "1777"
[[files]]
path = "/etc/alias"
link = "hosts"
"""


def parse(text: str, path: Path) -> Guest:
    """Return the guest that `text` describes, once it is written to `path`."""
    path.write_text(text)
    return read([path])


def example(name: str) -> str:
    return str(EXAMPLES / name / "guest.toml")


def started(name: str) -> tuple[str, ...]:
    """Options of `run` for a guest of the examples, of which no template is made."""
    return ("--guest", example(name), "--start", "cold")


@pytest.fixture(scope="module")
def rootfs() -> Path:
    """The step of the default root."""
    return build_guest(Guest(outputs=("root",), kernel=KernelPart(use="debian")), None)["rootfs.erofs"].parent


def test_each_is_resolved_without_building_anything() -> None:
    assert NAMES == ["debug", "kernel-option", "minimal", "policy-and-ca"]
    for name in NAMES:
        document = json.loads(succeed("build", "-f", example(name), "--print", "--json"))
        assert {step["name"] for step in document["steps"]} >= {"agent", "rootfs", "manifest"}
        assert succeed("build", "-f", example(name), "--print").startswith('architecture = "x86_64"\n')


def test_files_are_added_as_told_and_elsewhere_with_the_same_bits(rootfs: Path, tmp_path: Path) -> None:
    """The other store has the builders, whose packages may be newer if they were made again."""
    here, elsewhere = Store(paths.store_root()), Store(tmp_path / "cache" / "store")
    elsewhere.root.mkdir(parents=True)
    for builder in here.root.glob("builder-*/"):
        shutil.copytree(builder, elsewhere.root / builder.name)
    (tmp_path / "cache" / "buildah").symlink_to(here.root.parent / "buildah")
    guest = parse(ADDED, tmp_path / "guest.toml")
    image, other = (additions.customise(store, guest, rootfs) / "root.erofs" for store in (here, elsewhere))
    assert image.read_bytes() == other.read_bytes()
    with contents.unpacked(image) as folder:
        found = contents.entries(image, folder)
        assert (folder / "etc/hosts").read_text() == "127.0.0.1 localhost"
    assert (found["etc/secret"].mode, found["etc/secret"].owner) == ("0600", "1000:1001")
    assert (found["usr/bin/tool"].mode, found["usr/bin/tool"].owner) == ("4755", "0:0")
    assert (found["srv/data"].kind, found["srv/data"].mode, found["etc/alias"].target) == ("folder", "1777", "hosts")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ADDED.replace("replace = true", ""), "guest.toml: /etc/hosts: the root has this file already; set replace = true"),
        ('[[files]]\npath = "/etc"\ntext = ""', "guest.toml: /etc: the root has a folder there"),
        ('[[files]]\npath = "/etc/hosts/a"\ntext = ""', "guest.toml: /etc/hosts/a: /etc/hosts is not a folder"),
    ],
)
def test_what_cannot_be_added_is_told_in_one_line(rootfs: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InnkeeperError) as caught:
        additions.customise(Store(paths.store_root()), parse(text, tmp_path / "guest.toml"), rootfs)
    assert caught.value.message.startswith(message) and "\n" not in caught.value.message


def test_a_policy_and_a_file_are_in_force_and_in_the_bill_of_materials(tmp_path: Path) -> None:
    succeed("build", "-f", example("policy-and-ca"), "--sbom", "-o", str(tmp_path))
    made = json.loads((tmp_path / "sbom.cdx.json").read_text())
    found = sbom.files(made)
    assert [name for name, origin in found.items() if not origin] == [], "files without an origin"
    with contents.unpacked(tmp_path / "rootfs.erofs") as folder:
        entries = contents.entries(tmp_path / "rootfs.erofs", folder)
    assert {f"/{name}" for name, entry in entries.items() if entry.kind == "file"} == {name for name in found if name.startswith("/")}
    assert found["/etc/ssl/certs/company-ca.pem"] == found["/etc/innkeeper/policy.toml"] == "guest.toml"
    succeed("build", "-f", example("policy-and-ca"), "--sbom-format", "spdx", "-o", str(tmp_path))
    document = json.loads((tmp_path / "sbom.spdx.json").read_text())
    parser = JsonLikeDictParser()  # type: ignore[no-untyped-call]
    assert validate_full_spdx_document(parser.parse(document), "SPDX-2.3") == []
    assert spdx.files(document) == {name if name.startswith("/") else f"/{name}": origin for name, origin in found.items()}
    with detached(busybox_image(), "sleep", "1000", options=started("policy-and-ca")) as id:
        assert succeed("exec", id, "id").startswith("uid=0")
        refused = innkeeper("exec", id, "cat", "/etc/hostname")
        assert b"ExecProcess is blocked by policy: rule 'exec' of policy 'example'" in refused.stderr


def test_a_debug_guest_has_a_shell_and_packages_of_debian() -> None:
    with detached(busybox_image(), "sleep", "1000", options=started("debug")) as id:
        assert "strace -- version" in succeed("shell", id, "strace", "--version")
        assert 'log_level = "debug"' in succeed("shell", id, "cat", "/etc/innkeeper/agent.toml")
        assert "loglevel=7" in succeed("shell", id, "cat", "/proc/cmdline")


def test_a_minimal_guest_runs_a_container_and_is_smaller(tmp_path: Path) -> None:
    assert succeed("run", "--rm", *started("minimal"), busybox_image(), "echo", "ran") == "ran\n"
    succeed("build", "-f", example("minimal"), "-o", str(tmp_path / "minimal"))
    assert {path.name for path in (tmp_path / "minimal").iterdir()}.isdisjoint({"innkeeper.img", "innkeeper.initrd"})
    succeed("build", "--kernel", "debian", "-o", str(tmp_path / "default"))
    done = innkeeper("image", "diff", "--json", str(tmp_path / "default"), str(tmp_path / "minimal"))
    assert done.returncode == 1
    difference = json.loads(done.stdout)
    assert {"usr/lib/innkeeper/gateway", "usr/lib/innkeeper/_internal/libstdc++.so.6"} <= difference["files"]["removed"].keys()
    assert not difference["files"]["added"] and not any(difference["kernel"].values())
    assert all(name.startswith("gateway: ") for name in difference["modules"]["removed"])


def test_a_program_reads_the_result_of_a_build(tmp_path: Path) -> None:
    (tmp_path / "guest.toml").write_text(f'include = ["{example("minimal")}"]\n[[files]]\npath = "/etc/id"\ntext = "{os.urandom(8).hex()}"')
    words = ("build", "-f", str(tmp_path / "guest.toml"), "-o", str(tmp_path / "out"), "--json", "--progress", "json")
    done = innkeeper(*words)
    result, events = json.loads(done.stdout), [json.loads(line) for line in done.stderr.splitlines()]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert result["outputs"] == {name: {"path": f"{tmp_path}/out/{name}", **entry} for name, entry in manifest["outputs"].items()}
    assert result["verity_root_hash"] == manifest["verity"]["root_hash"]
    made = {step["name"]: step for step in result["steps"] if not step["in_store"]}
    assert made.keys() == {"custom-root", "verity", "manifest"} and all(step["seconds"] > 0 for step in made.values())
    assert [(one["event"], one["step"]) for one in events if "step" in one and "tree" in one["step"]] == [
        ("started", "making the root's hash tree"),
        ("finished", "making the root's hash tree"),
    ]
    again = json.loads(succeed(*words))
    assert all(step["in_store"] and step["seconds"] == 0 for step in again["steps"])
    refused = innkeeper(*words, "--kernel", "linux-source-0")
    assert (refused.returncode, refused.stdout) == (125, b"")
    assert [json.loads(line)["event"] for line in refused.stderr.splitlines()] == ["error"]
    for name in made:
        shutil.rmtree(next(paths.store_root().glob(f"{name}-{made[name]['id'][:16]}")))


@pytest.mark.long
def test_a_kernel_with_more_options_boots(tmp_path: Path) -> None:
    succeed("build", "-f", example("kernel-option"), "-o", str(tmp_path), patience=COMPILED)
    assert "CONFIG_E1000E=y" in (tmp_path / "config").read_text()
    kinds = succeed("run", "--rm", *started("kernel-option"), busybox_image(), "cat", "/proc/filesystems")
    assert "squashfs" in kinds
