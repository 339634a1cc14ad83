"""Files outside of every root, which no container may change, cover or see."""

from pathlib import Path


def make_canary(folder: Path) -> None:
    """What must not change, be mounted over, or be seen from inside."""
    (folder / "open/inner").mkdir(parents=True)
    (folder / "open").chmod(0o777)
    (folder / "secret").write_text("canary\n")
    (folder / "secret").chmod(0o600)
    (folder / "device").write_text("")
    (folder / "link").symlink_to("secret")


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder: kind, mode, owner, size, time of change, content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        fields = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)
        found[str(path.relative_to(folder))] = (*fields, content)
    return found
