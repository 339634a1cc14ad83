"""Small files in place of what a build leaves in its store."""

from pathlib import Path

from innkeeper.guest import Artifacts


def guest(folder: Path) -> Artifacts:
    """Return the files, in `folder`."""
    names = ("vmlinux", "bzImage", "config", "root.erofs", "innkeeper.img", "innkeeper.initrd", "verity.toml", "manifest.json")
    for name in names:
        (folder / name).write_text(name)
    fields = ("vmlinux", "bzImage", "config", "rootfs", "disk", "initrd", "verity", "manifest")
    return Artifacts(**{field: folder / name for field, name in zip(fields, names, strict=True)})
