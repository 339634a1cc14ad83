"""Random layers, once read and merged by us and once laid over each other by the kernel: prints both trees of each case as JSON.

python -m tests.root.image.image_overlay FOLDER SEED COUNT      in a mount namespace of its own
"""

import ctypes
import io
import json
import os
import random
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

from innkeeper.image.layer import read_layer
from innkeeper.image.tree import merge, new_directory, read
from tests.image_helpers import walk

NAMES = ("a", "b", "c")


def random_layer(choose: random.Random, archive: tarfile.TarFile, diff: Path, prefix: str = "", depth: int = 0) -> None:
    """Add random entries below `prefix`: to the archive as an image has them, to the folder as overlayfs has them."""
    for name in NAMES:
        kind = choose.choices(("none", "file", "folder", "opaque", "link", "whiteout"), (4, 3, 4, 2, 1, 2))[0]
        if kind in ("folder", "opaque") and depth == 3:
            kind = "file"
        path, mode = f"{prefix}{name}", choose.choice((0o700, 0o750, 0o755))
        target = diff / name
        if kind == "file":
            data = choose.randbytes(8).hex().encode()
            add(archive, path, tarfile.REGTYPE, mode, data)
            target.write_bytes(data)
        elif kind == "link":
            add(archive, path, tarfile.SYMTYPE, 0o777, linkname="a/b")
            target.symlink_to("a/b")
        elif kind == "whiteout":
            add(archive, f"{prefix}.wh.{name}", tarfile.REGTYPE, 0o600)
            os.mknod(target, stat.S_IFCHR, 0)
        elif kind in ("folder", "opaque"):
            target.mkdir()
            before = choose.random() < 0.5
            add(archive, path, tarfile.DIRTYPE, mode)
            if kind == "opaque":
                os.setxattr(target, "trusted.overlay.opaque", b"y")
            if kind == "opaque" and before:
                add(archive, f"{path}/.wh..wh..opq", tarfile.REGTYPE, 0o600)
            random_layer(choose, archive, target, f"{path}/", depth + 1)
            if kind == "opaque" and not before:
                add(archive, f"{path}/.wh..wh..opq", tarfile.REGTYPE, 0o600)
        if kind in ("file", "folder", "opaque"):
            os.chmod(target, mode)


def add(archive: tarfile.TarFile, name: str, kind: bytes, mode: int, data: bytes = b"", linkname: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(data), linkname
    archive.addfile(info, io.BytesIO(data))


def kernels_tree(top: Path) -> dict[str, str]:
    found = {}
    for path in sorted(top.rglob("*")):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # a whiteout in a folder of one layer alone: listed, but not there
            continue
        content = os.readlink(path) if path.is_symlink() else path.read_text() if stat.S_ISREG(mode) else ""
        found[str(path.relative_to(top))] = f"{oct(mode)} {content}"
    return found


def our_tree(layers: list[Path]) -> dict[str, str]:
    tree = new_directory()
    for layer in layers:
        tree = merge(tree, read_layer(layer, tree))
    found = {}
    for path, node, _ in walk(tree):
        content = node.target if node.is_symlink else (read(node, 100) or b"") if node.is_file else b""
        found[path.decode()[1:]] = f"{oct(node.mode)} {content.decode()}"
    return found


def case(folder: Path, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    choose = random.Random(seed)
    folder.mkdir()
    layers, diffs = [], []
    for number in range(choose.randint(2, 5)):
        layers.append(folder / f"{number}.tar")
        diffs.append(folder / f"{number}")
        diffs[-1].mkdir()
        with tarfile.open(layers[-1], "w") as archive:
            random_layer(choose, archive, diffs[-1])
    place = folder / "merged"
    place.mkdir()
    # An empty layer below: the kernel wants two, and shows whiteouts of the lowest one as devices.
    (folder / "empty").mkdir()
    lower = ":".join(str(diff) for diff in [*diffs[::-1], folder / "empty"])
    subprocess.run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={lower}", "none", place], check=True)
    expected = kernels_tree(place)
    ctypes.CDLL(None).umount2(os.fsencode(place), 2)
    return our_tree(layers), expected


if __name__ == "__main__":
    base, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    json.dump([case(base / str(seed), seed) for seed in range(first, first + count)], sys.stdout)
