"""What containerd's snapshotters ask for as a root, and what the guest is asked for then."""

import json
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import features, roots
from innkeeper.shim.pb import containerd_pb2 as pb

PLACE = "/run/kata-containers/c-one"
MADE = ["X-containerd.mkdir.path={{ mount 0 }}/upper:0755", "X-containerd.mkdir.path={{ mount 0 }}/work:0755"]
UPPER = [*MADE, "workdir={{ mount 0 }}/work", "upperdir={{ mount 0 }}/upper"]


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """The paths of three images: of the writable layer, and of two others."""
    found = [tmp_path / name for name in ("rwlayer.img", "top.erofs", "base.erofs")]
    for path in found:
        path.touch()
    return [str(path) for path in found]


def layers(images: list[str], *options: str, top: str = "format/mkdir/overlay") -> list[pb.Mount]:
    made = [pb.Mount(type="ext4", source=images[0], options=["rw", "loop"])]
    made += [pb.Mount(type="erofs", source=path, options=["ro", "loop"]) for path in images[1:]]
    return [*made, pb.Mount(type=top, source="overlay", options=options)]


def test_layers_of_erofs(images: list[str]) -> None:
    root = roots.plan(layers(images, *UPPER, "lowerdir={{ overlay 1 2 }}", "index=off"))
    assert root is not None
    assert [(str(disk.path), disk.read_only) for disk in root.disks] == list(zip(images, (False, True, True), strict=True))
    *disks, top = root.storages("c-one", ["4:0", "5:0", "6:0"])
    assert [(disk.driver, disk.source, disk.fstype, disk.mount_point) for disk in disks] == [
        ("scsi", "4:0", "ext4", f"{PLACE}/layers/0"),
        ("scsi", "5:0", "erofs", f"{PLACE}/layers/1"),
        ("scsi", "6:0", "erofs", f"{PLACE}/layers/2"),
    ]
    assert [list(disk.options) for disk in disks] == [["rw"], ["ro"], ["ro"]]
    assert (top.driver, top.mount_point) == ("overlayfs", f"{PLACE}/rootfs")
    lower = f"lowerdir={PLACE}/layers/1:{PLACE}/layers/2"
    assert list(top.options) == [f"workdir={PLACE}/layers/0/work", f"upperdir={PLACE}/layers/0/upper", lower, "index=off"]
    assert list(top.driver_options) == [f"{roots.CREATE_DIRECTORY}={PLACE}/layers/0/{name}" for name in ("upper", "work")]


def test_layers_that_are_merged(images: list[str]) -> None:
    """Layers stay disks. The one over them names theirs by address, in the order in which containerd names their files."""
    mounts = layers(images[:2], *UPPER, "lowerdir={{ mount 1 }}")
    mounts[1].options.extend(f"device={path}" for path in (images[2], images[1]))
    root = roots.plan(mounts)
    assert root is not None
    assert root.files == [(Path(images[0]), False), *((Path(images[index]), True) for index in (1, 2, 1))]
    _, merged, top = root.storages("c-one", ["4:0", "5:0", "6:0", "7:0"])
    assert (merged.source, list(merged.options)) == ("5:0", ["ro", "device=6:0", "device=7:0"])
    assert f"lowerdir={PLACE}/layers/1" in top.options


def test_one_disk(images: list[str]) -> None:
    root = roots.plan([pb.Mount(type="ext4", source=images[0], options=["loop", "noatime"])])
    assert root is not None
    (disk,) = root.storages("c-one", ["0:0"])
    assert (disk.fstype, list(disk.options), disk.mount_point) == ("ext4", ["noatime"], f"{PLACE}/rootfs")


def test_one_layer_that_is_only_read(images: list[str]) -> None:
    top = pb.Mount(type="format/bind", source="{{ mount 0 }}", options=["ro", "rbind"])
    root = roots.plan([pb.Mount(type="erofs", source=images[1], options=["ro", "loop"]), top])
    assert root is not None
    bind = root.storages("c-one", ["0:0"])[1]
    assert (bind.driver, bind.source, list(bind.options)) == ("bind", f"{PLACE}/layers/0", ["ro", "rbind"])


def test_layers_that_the_guest_checks(images: list[str], tmp_path: Path) -> None:
    file = tmp_path / "hash"
    mount = pb.Mount(type="erofs", source=images[1], options=["ro", "loop", f"X-containerd.dmverity={file}"])
    with pytest.raises(InnkeeperError, match="no root hash of dm-verity"):
        roots.plan([mount])
    file.write_text(json.dumps({"roothash": "ab" * 32, "hashoffset": 8192}))
    root = roots.plan([mount])
    assert root is not None
    assert root.disks[0].options == (
        *("ro", "X-kata.dmverity-enabled=true"),
        *(f"X-kata.dmverity.roothash={'ab' * 32}", "X-kata.dmverity.hashoffset=8192"),
    )


def test_what_the_host_mounts() -> None:
    assert roots.plan([]) is None
    assert roots.plan([pb.Mount(type="overlay", source="overlay", options=["lowerdir=/a:/b"])]) is None
    assert roots.plan([pb.Mount(type="bind", source="/a", options=["rbind"])]) is None


@pytest.mark.parametrize(
    ("options", "top", "message"),
    [
        (["lowerdir={{ overlay 1 3 }}"], "overlay", "there are 3 disks"),
        (["lowerdir={{ overlay 1 }}"], "overlay", "there are 3 disks"),
        (["lowerdir={{ target 1 }}"], "overlay", "the template is not known"),
        (["X-containerd.mkdir.path={{ mount 0 }}/upper:0700"], "overlay", "mode 0755"),
        ([], "format/tmpfs", "under a mount of type format/tmpfs"),
        ([], "erofs", "no mount that makes one root"),
    ],
)
def test_what_is_not_understood(options: list[str], top: str, message: str, images: list[str]) -> None:
    with pytest.raises(InnkeeperError, match=message):
        roots.plan(layers(images, *options, top=top))


def test_what_cannot_be_a_disk(images: list[str], tmp_path: Path) -> None:
    for mount, message in (
        (pb.Mount(type="ext4", source="/dev/null"), "neither a file nor a block device"),
        (pb.Mount(type="ext4", source=str(tmp_path / "none")), "No such file"),
        (pb.Mount(type="erofs", source=images[1], options=["device=/dev/null"]), "/dev/null is neither"),
        (pb.Mount(type="mkfs/ext4", source=images[0]), "mkfs/ext4 is not supported"),
    ):
        with pytest.raises(InnkeeperError, match=message):
            roots.plan([mount, pb.Mount(type="format/bind", source="{{ mount 0 }}")])
    with pytest.raises(InnkeeperError, match="a folder of the host") as caught:
        roots.plan(layers(images, "upperdir=/host", "lowerdir={{ overlay 1 2 }}"))
    assert "default_size" in (caught.value.hint or "")


def test_the_claim_of_mounts() -> None:
    assert features.ANNOTATIONS == {"containerd.io/runtime-allow-mounts": "format/*,mkdir/*,erofs"}
    extension = features.mount_claim().value
    assert extension.type_url == "containerd.types.MountCapabilities"
    assert list(pb.MountCapabilities.FromString(extension.value).transforms) == ["format", "mkdir"]
