"""The layout for Kata's shim: what is written, and that it is taken away exactly."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts
from innkeeper.installation import copy_file
from innkeeper.kata import Layout, install, uninstall
from innkeeper.node.files import runtime_classes

VERITY = 'kernel_verity_params = "root_hash=ab,salt=cd,data_blocks=1,data_block_size=4096,hash_block_size=4096"'
HANDLERS = ["innkeeper", "innkeeper-initrd", "innkeeper-clh"]


@pytest.fixture
def built(tmp_path: Path) -> Artifacts:
    """Small files in place of what a build leaves."""
    folder = tmp_path / "out"
    folder.mkdir()
    names = ("vmlinux", "bzImage", "config", "rootfs.erofs", "innkeeper.img", "innkeeper.initrd", "verity.toml", "manifest.json")
    for name in names:
        (folder / name).write_text(name)
    (folder / "verity.toml").write_text(VERITY + "\n")
    fields = ("vmlinux", "bzImage", "config", "rootfs", "disk", "initrd", "verity", "manifest")
    return Artifacts(**{field: folder / name for field, name in zip(fields, names, strict=True)})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path / "opt/innkeeper", Path("/usr/bin/qemu"), Path('/odd "place"/virtiofsd'), Path("/usr/bin/clh"))


def hypervisor(layout: Layout, handler: str, table: str) -> dict[str, Any]:
    """What the shim reads of a handler's hypervisor, once it is sure that the rest is as it must be in all of them."""
    document = tomllib.loads(layout.configurations[handler].read_text())
    assert document["runtime"]["disable_guest_seccomp"] is False
    assert document["runtime"]["create_container_timeout"] > 0, "none would be none at all"
    assert list(document["hypervisor"]) == [table]
    found: dict[str, Any] = document["hypervisor"][table]
    assert found["path"] in found["valid_hypervisor_paths"]
    assert found["virtio_fs_daemon"] == '/odd "place"/virtiofsd'
    return found


def test_qemu_with_the_image(layout: Layout, built: Artifacts) -> None:
    assert all(path.is_file() for path in install(layout, built))
    found = hypervisor(layout, "innkeeper", "qemu")
    assert Path(found["kernel"]).read_text() == "bzImage"
    assert Path(found["image"]).read_text() == "innkeeper.img"
    assert "initrd" not in found, "the shim refuses an image and an initrd together"
    assert found["disable_image_nvdimm"] is True


def test_qemu_with_the_initrd(layout: Layout, built: Artifacts) -> None:
    install(layout, built)
    found = hypervisor(layout, "innkeeper-initrd", "qemu")
    assert Path(found["kernel"]).read_text() == "bzImage"
    assert Path(found["initrd"]).read_text() == "innkeeper.initrd"
    assert not {"image", "rootfs_type", "disable_image_nvdimm", "kernel_verity_params"} & set(found)


def test_cloud_hypervisor(layout: Layout, built: Artifacts) -> None:
    install(layout, built)
    found = hypervisor(layout, "innkeeper-clh", "clh")
    assert found["path"] == "/usr/bin/clh"
    assert Path(found["kernel"]).read_text() == "vmlinux", "it starts the ELF file by its PVH entry"
    assert Path(found["image"]).read_text() == "innkeeper.img"
    assert found["disable_image_nvdimm"] is True
    assert "machine_type" not in found


@pytest.mark.parametrize(("handler", "table"), [("innkeeper", "qemu"), ("innkeeper-clh", "clh")])
def test_a_checked_root_is_one_line_away(layout: Layout, built: Artifacts, handler: str, table: str) -> None:
    install(layout, built)
    path = layout.configurations[handler]
    path.write_text(path.read_text().replace(f"# {VERITY}\n", f"{VERITY}\n"))
    assert f'kernel_verity_params = "{hypervisor(layout, handler, table)["kernel_verity_params"]}"' == VERITY


def test_every_handler_has_its_configuration_and_its_class(layout: Layout, built: Artifacts) -> None:
    install(layout, built)
    handler = tomllib.loads((layout.prefix / "etc/containerd-innkeeper.toml").read_text())
    runtimes = handler["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert {name: runtime["options"]["ConfigPath"] for name, runtime in runtimes.items()} == {
        name: str(layout.configurations[name]) for name in HANDLERS
    }
    classes = (layout.prefix / "share/runtimeclass.yaml").read_text().split("---\n")
    assert [[line.split()[1] for line in text.splitlines() if "name: " in line or "handler: " in line] for text in classes] == [
        [name, name] for name in HANDLERS
    ]


def test_holes_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with open(source, "wb") as file:
        for at in (0, 3 << 20, (40 << 20) + 100):
            file.seek(at)
            file.write(b"data" * 5000)
        file.truncate(64 << 20)
    copy_file(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks
    source.write_bytes(b"")
    copy_file(source, target)
    assert target.read_bytes() == b""


def test_exactly_that_is_taken_away(layout: Layout, built: Artifacts) -> None:
    own = layout.prefix / "share/notes"
    install(layout, built)
    own.write_text("the operator's")
    assert uninstall(layout.prefix) == []
    assert [path for path in layout.prefix.rglob("*") if path.is_file()] == [own]
    own.unlink()
    own.parent.rmdir()
    install(layout, built)
    uninstall(layout.prefix)
    assert not layout.prefix.exists()


def test_what_the_operator_changed_stays(layout: Layout, built: Artifacts) -> None:
    install(layout, built)
    mine = layout.configurations["innkeeper"]
    mine.write_text("mine")
    made = install(layout, built)
    assert mine.read_text() == "mine"
    assert mine.with_name(f"{mine.name}.new") in made
    assert uninstall(layout.prefix) == [mine]
    assert [path for path in layout.prefix.rglob("*") if path.is_file()] == [mine]


def test_again_replaces_what_is_unchanged(layout: Layout, built: Artifacts) -> None:
    install(layout, built)
    built.bzImage.write_text("a newer kernel")
    install(layout, built)
    assert (layout.prefix / "share/bzImage").read_text() == "a newer kernel"
    assert len(json.loads((layout.prefix / "installed.json").read_text())["files"]) == 12


def test_a_handler_that_our_shim_has(layout: Layout, built: Artifacts) -> None:
    other = layout.prefix / "share/shim/runtimeclass.yaml"
    other.parent.mkdir(parents=True)
    other.write_text(runtime_classes("innkeeper"))
    with pytest.raises(InnkeeperError, match=r"the handler innkeeper is in .*/share/shim/runtimeclass.yaml already"):
        install(layout, built)
    other.write_text(runtime_classes("vm"))
    install(layout, built)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match="absolute paths"):
        Layout.of(Path("relative"))
    with pytest.raises(InnkeeperError, match="holds no installation"):
        uninstall(tmp_path)
