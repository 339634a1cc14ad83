"""The guest's root in each shape that Kata's shim can give it: memory device, checked by a hash tree, initrd. The disk is test_shim's."""

import json
import shutil
from pathlib import Path

import pytest

from tests.interop.configurations import changed
from tests.interop.node import Node
from tests.interop.test_shim import pytestmark as pytestmark
from tests.vm.guest import artifacts

NVDIMM = {"disable_image_nvdimm": "disable_image_nvdimm = false"}
PARTITION = 3 << 20


def words(node: Node, id: str, lines: dict[str, str], script: str = "true") -> tuple[list[str], str]:
    """The guest's kernel command line, and what `script` prints, in a machine of the configuration with `lines` changed."""
    configuration = changed(node.folder / "kata.toml", node.folder / "changed.toml", lines)
    done = node.run(id, "sh", "-c", f"cat /proc/cmdline; {script}", configuration=configuration)
    assert done.returncode == 0, done.stderr
    line, _, rest = done.stdout.partition("\n")
    return line.split(), rest


def verity(lines: dict[str, str] | None = None) -> dict[str, str]:
    return {"rootfs_type": f'rootfs_type = "erofs"\n{artifacts().verity.read_text().strip()}', **(lines or {})}


def test_a_memory_device(node: Node) -> None:
    found, disks = words(node, "memory", NVDIMM, "ls /sys/block")
    assert "root=/dev/pmem0p1" in found
    assert {"rootflags=dax", "ro", "rootfstype=erofs"} <= set(found)
    assert "pmem0" in disks.split()
    assert "vda" not in disks.split()


@pytest.mark.parametrize(("device", "lines"), [("vda", {}), ("pmem0p", NVDIMM)])
def test_a_checked_root(node: Node, device: str, lines: dict[str, str]) -> None:
    """The kernel makes the mapping itself, by the parameters that the shim writes of ours."""
    found, name = words(node, f"checked-{device}", verity(lines), "cat /sys/block/dm-0/dm/name")
    assert "root=/dev/dm-0" in found
    assert f"/dev/{device}1 /dev/{device}2 4096 4096" in " ".join(found)
    assert json.loads(artifacts().manifest.read_text())["verity"]["root_hash"] in found
    assert name == "dm-verity\n"


def test_a_byte_of_a_checked_root_is_another(node: Node, tmp_path: Path) -> None:
    """It is one that the file system never looks at, in the block of its superblock: only who checks the block sees it."""
    image = tmp_path / "image"
    shutil.copyfile(artifacts().disk, image)
    with open(image, "r+b") as file:
        file.seek(PARTITION)
        file.write(b"x")
    other = {"image": f'image = "{image}"'}
    assert "root=/dev/vda1" in words(node, "unchecked", other)[0]
    configuration = changed(node.folder / "kata.toml", node.folder / "changed.toml", verity({**other, "dial_timeout": "dial_timeout = 20"}))
    assert node.run("corrupt", "true", configuration=configuration).returncode != 0


def test_an_initrd(node: Node) -> None:
    """All of the harness's checks: containers are made and left as from a disk."""
    kept = (node.folder / "kata.toml").read_text()
    initrd = {"image": f'initrd = "{artifacts().initrd}"'}
    assert not [word for word in words(node, "initrd", initrd)[0] if word.startswith("root=")]
    try:
        shutil.copyfile(node.folder / "changed.toml", node.folder / "kata.toml")
        done = node.harness("smoke")
    finally:
        (node.folder / "kata.toml").write_text(kept)
    assert done.stdout.splitlines()[-1] == "19 passed, 0 failed", done.stdout + done.stderr
