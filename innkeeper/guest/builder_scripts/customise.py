"""Runs inside the builder: adds files and packages to a finished root and makes an image.

    customise.py     with /rootfs/root.erofs, /plan (plan.json, files/), and /out to write to

Leaves `root.erofs`, `files.json` and `origins.json` in /out. As in assemble.py, nothing may depend
on time, on the order of a listing or on paths.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # -I leaves it out

import assemble  # type: ignore[import-not-found]  # beside this file, in the builder
from debian_files import Packages  # type: ignore[import-not-found]

ROOT: Path = assemble.ROOT


def main() -> None:
    """Add what the plan says and write the image."""
    plan = json.loads(Path("/plan/plan.json").read_text())
    subprocess.run(["fsck.erofs", f"--extract={ROOT}", "--preserve", "/rootfs/root.erofs"], check=True, stdout=subprocess.DEVNULL)
    origins: dict[str, Any] = {}
    before = all_files()
    installed = Packages()
    for package in installed.closure(plan["packages"], set(plan["base"])):
        for path in installed.files(package):
            origins[add_packaged(path, package)] = {
                "type": "debian",
                "name": package,
                "version": installed.version(package),
                "path": str(path),
            }
    if plan["packages"]:
        assemble.copy_libraries()
    for number, entry in enumerate(plan["files"]):
        origins[add(entry, Path("/plan/files") / str(number))] = {"type": "guest.toml", "path": entry["path"]}
    subprocess.run(["/sbin/ldconfig", "-X", "-r", ROOT], check=True)
    shutil.rmtree(ROOT / "var/cache", ignore_errors=True)
    sizes = {name: (ROOT / name).stat().st_size for name in all_files()}
    Path("/out/files.json").write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n")
    kept = {name: origin for name, origin in origins.items() if name in sizes or (ROOT / name).is_symlink()}
    Path("/out/origins.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(f"{len(sizes) - len(before)} files added")
    make_image()


def all_files() -> list[str]:
    """Return the root's files, without links and folders."""
    found = [path for path in sorted(ROOT.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [str(path.relative_to(ROOT)) for path in found]


def add_packaged(path: Path, package: str) -> str:
    """Copy a file or link of a package to its place and return that.

    What the root has there already must be the same.
    """
    target = placed(str(path))
    status = path.lstat()
    if path.is_symlink():
        if not target.is_symlink() and not target.exists():
            target.symlink_to(os.readlink(path))
        elif not target.is_symlink() or os.readlink(target) != os.readlink(path):
            raise SystemExit(f"refused: package {package}: {path}: the root has another file there")
        return str(target.relative_to(ROOT))
    if target.is_symlink() or (target.exists() and target.read_bytes() != path.read_bytes()):
        raise SystemExit(f"refused: package {package}: {path}: the root has another file there")
    shutil.copyfile(path, target)
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(status.st_mode & 0o7777)
    return str(target.relative_to(ROOT))


def add(entry: dict[str, Any], content: Path) -> str:
    """Add a file, folder or link of guest.toml and return where it is."""
    target = placed(entry["path"])
    kind = entry["kind"]
    if kind == "folder":
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise SystemExit(f"refused: {entry['path']}: the root has something else there that is not a folder")
        target.mkdir(exist_ok=True)
    else:
        remove(target, entry)
        if kind == "link":
            target.symlink_to(entry["target"])
        else:
            shutil.copyfile(content, target)
    user, _, group = entry["owner"].partition(":")
    os.chown(target, int(user), int(group), follow_symlinks=False)
    if kind != "link":
        target.chmod(entry["mode"])
    return str(target.relative_to(ROOT))


def remove(target: Path, entry: dict[str, Any]) -> None:
    """Make way for a file. Raises SystemExit if the root has one and `replace` is not set."""
    if not target.is_symlink() and not target.exists():
        return
    if target.is_dir() and not target.is_symlink():
        raise SystemExit(f"refused: {entry['path']}: the root has a folder there")
    if not entry["replace"]:
        raise SystemExit(f"refused: {entry['path']}: the root has this file already; set replace = true to replace it")
    target.unlink()


def placed(path: str) -> Path:
    """Return where a path of the guest is, and make the folders on the way.

    Links in the root may not lead out of it.
    """
    target = ROOT / path[1:]
    parent = ROOT
    for part in target.relative_to(ROOT).parts[:-1]:
        parent = (parent / part).resolve()
        if not parent.is_relative_to(ROOT):
            raise SystemExit(f"refused: {path}: a link of the root leads out of it")
        if parent.exists() and not parent.is_dir():
            raise SystemExit(f"refused: {path}: /{parent.relative_to(ROOT)} is not a folder")
        if not parent.exists():
            parent.mkdir(mode=0o755)
            parent.chmod(0o755)
    return parent / target.name


def make_image() -> None:
    """Write /out/root.erofs as assemble.make_image does, with the owners that the files have."""
    epoch = os.environ["SOURCE_DATE_EPOCH"]
    hints = Path("/tmp/compress-hints")
    hints.write_text("".join(f"{assemble.LARGE_CLUSTER} {library}\n" for library in assemble.LATE_LIBRARIES))
    options = [f"-T{epoch}", "--all-time", f"-U{assemble.UUID}", "-x-1", "-zlz4hc", "--workers=1", f"--compress-hints={hints}"]
    subprocess.run(["mkfs.erofs", "--quiet", *options, "/out/root.erofs", ROOT], check=True)


if __name__ == "__main__":
    main()
