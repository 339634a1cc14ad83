"""Makes an image of four layers with buildah that uses what layers can hold, and prints what buildah itself mounts of it.

python image_layers.py FOLDER ARCHIVE      in a mount namespace of its own (buildah's mounts end with it)
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.root.image.image_scan import scan

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ODD = b"caf\xe9 \xff"


def first(root: Path) -> None:
    """All kinds of files."""
    for folder in ("bin", "etc", "d/deep", "gone/sub", "becomes-file/x", "becomes-link", "opaque/sub", "keeps", "empty"):
        (root / folder).mkdir(parents=True)
    for name in ("bin/tool", "d/a", "d/b", "gone/sub/f", "becomes-file/x/y", "becomes-dir", "opaque/old", "opaque/sub/old", "keeps/k"):
        (root / name).write_text(name * 50)
    os.chmod(root / "bin/tool", 0o4755)
    os.chmod(root / "keeps", 0o2711)
    os.chown(root / "keeps", 123456, 4_000_000_000)
    os.chown(root / "d/a", 1, 2)
    os.setxattr(root / "bin/tool", "security.capability", CAPABILITY)
    os.setxattr(root / "d/a", "user.long", b"v" * 3000)
    os.setxattr(root / "d/a", "user.binary", b"\0=\n\xff")
    os.setxattr(root / "d", "user.folder", b"")
    os.link(root / "d/a", root / "d/a-again")
    os.link(root / "d/a", root / "keeps/a-elsewhere")
    os.link(root / "d/b", root / "d/b-again")
    os.symlink("/etc", root / "absolute")
    os.symlink("../nowhere/" + "x" * 200, root / "d/dangling")
    os.symlink("t" * 4090, root / "longest")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    os.mknod(root / "disk", 0o060660, os.makedev(259, 300_000))
    (root / ("n" * 255)).write_text("longest name")
    Path(os.fsdecode(os.fsencode(root) + b"/" + ODD)).write_text("not UTF-8")
    deep = root / "d/deep"
    for _ in range(8):
        deep = deep / ("p" * 90)
        deep.mkdir()
    (deep / "bottom").write_text("far down")
    for size in (0, 1, 1023, 1024, 1025, 4000, 4095, 4096, 4097, 8192, 70_001, 1_500_000):
        (root / f"size-{size}").write_bytes(os.urandom(size))
    with (root / "sparse").open("wb") as file:
        file.seek(40 << 20)
        file.write(b"behind the hole")
        file.truncate(64 << 20)
    (root / "many").mkdir()
    for number in range(1500):
        (root / f"many/entry-number-{number}").symlink_to(str(number))
    os.utime(root / "d/b", ns=(1, 1_234_567_890_123_456_789))
    os.utime(root / "d/b-again", ns=(1, 7))


def second(root: Path) -> None:
    """Removes and replaces."""
    (root / "d/a-again").unlink()
    (root / "d/b").write_text("changed through one of two names")
    subprocess.run(["rm", "-r", root / "gone", root / "becomes-file", root / "becomes-link", root / "opaque"], check=True)
    (root / "becomes-file").write_text("a file now")
    (root / "becomes-link").symlink_to("keeps")
    (root / "becomes-dir").unlink()
    (root / "becomes-dir").mkdir(mode=0o750)
    (root / "becomes-dir/in").write_text("in")
    (root / "opaque").mkdir()
    (root / "opaque/new").write_text("new")
    os.chmod(root / "d/deep", 0o700)
    (root / "sparse").write_text("small now")


def third(root: Path) -> None:
    """Over what the second did."""
    (root / "keeps/a-elsewhere").unlink()
    os.link(root / "keeps/k", root / "d/k-again")
    (root / "gone").mkdir()
    (root / "gone/back").write_text("back")
    subprocess.run(["mv", root / "becomes-dir", root / "renamed"], check=True)  # overlayfs refuses rename(2) of such a folder
    os.removexattr(root / "bin/tool", "security.capability")
    os.chown(root / "null", 5, 6)
    (root / "opaque/old").write_text("not the old one")
    for number in range(0, 1500, 3):
        (root / f"many/entry-number-{number}").unlink()


def fourth(root: Path) -> None:
    """Removes a link and its target, and puts a folder where a link was."""
    (root / "absolute").unlink()
    (root / "absolute").mkdir()
    (root / "absolute/in").write_text("in")
    subprocess.run(["rm", "-r", root / "empty", root / "renamed", root / "d/k-again"], check=True)


def main(folder: Path, archive: str) -> None:
    storage = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-opt", "overlay.skip_mount_home=true"]

    def buildah(*arguments: str) -> str:
        return subprocess.run(["buildah", *storage, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    image = "scratch"
    steps: list[Callable[[Path], None]] = [first, second, third, fourth]
    for step in steps:
        name = step.__name__
        buildah("from", "--pull-never", "--name", name, image)
        step(Path(buildah("mount", name)))
        image = f"localhost/{name}"
        buildah("commit", "--quiet", name, image)
    buildah("push", "--quiet", image, archive)
    buildah("from", "--pull-never", "--name", "look", image)
    json.dump(scan(buildah("mount", "look")), sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
