"""Install the guest below a prefix, and remove exactly what was installed.

`installed.json` lists each file with its sha256. A file that the operator has changed since belongs
to the operator: it stays, and is reported.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.files import replaced
from innkeeper.guest import Artifacts
from innkeeper.guest.store import hash_file
from innkeeper.kata import files

QEMU = (Path("/opt/kata/bin/qemu-system-x86_64"), Path("/usr/bin/qemu-system-x86_64"))
VIRTIOFSD = (Path("/opt/kata/libexec/virtiofsd"), Path("/usr/libexec/virtiofsd"), Path("/usr/lib/virtiofsd"))
CLOUD_HYPERVISOR = (Path("/opt/kata/bin/cloud-hypervisor"), Path("/usr/bin/cloud-hypervisor"))
RECORD = "installed.json"


@dataclass(frozen=True)
class Layout:
    """The paths of an installation.

    `qemu`, `virtiofsd` and `cloud_hypervisor` are the node's own programs.
    """

    prefix: Path
    qemu: Path
    virtiofsd: Path
    cloud_hypervisor: Path

    @classmethod
    def of(cls, prefix: Path, qemu: Path | None = None, virtiofsd: Path | None = None, cloud_hypervisor: Path | None = None) -> "Layout":
        """Return a layout that uses Kata's programs if the node has them, else Debian's.

        Raises InnkeeperError if `prefix` is not absolute.
        """
        if not prefix.is_absolute():
            raise InnkeeperError(f"--prefix {prefix}: the shim needs absolute paths")
        return cls(prefix, qemu or first(QEMU), virtiofsd or first(VIRTIOFSD), cloud_hypervisor or first(CLOUD_HYPERVISOR))

    @property
    def configurations(self) -> dict[str, Path]:
        """Return the path of the shim's configuration file for each handler."""
        names = {files.HANDLER: "qemu", files.INITRD_HANDLER: "qemu-initrd", files.CLH_HANDLER: "clh"}
        return {handler: self.prefix / f"etc/configuration-innkeeper-{name}.toml" for handler, name in names.items()}

    def texts(self, verity: str) -> dict[Path, str]:
        """Return the text of each file to write, by path.

        `verity` is the content of `verity.toml`.
        """
        share = self.prefix / "share"
        kernel, image = share / "bzImage", share / "innkeeper.img"
        image_configuration, initrd_configuration, clh_configuration = self.configurations.values()
        return {
            image_configuration: files.qemu_with_image(kernel, image, self.qemu, self.virtiofsd, verity),
            initrd_configuration: files.qemu_with_initrd(kernel, share / "innkeeper.initrd", self.qemu, self.virtiofsd),
            clh_configuration: files.cloud_hypervisor(share / "vmlinux", image, self.cloud_hypervisor, self.virtiofsd, verity),
            self.prefix / "etc/containerd-innkeeper.toml": files.containerd_handlers(self.configurations),
            share / "runtimeclass.yaml": files.RUNTIME_CLASSES,
            share / "pod.yaml": files.POD,
        }


def first(candidates: Iterable[Path]) -> Path:
    """Return the first candidate that exists, or else the last one.

    The node may get the program later, so a missing one is no error.
    """
    found = list(candidates)
    return next((path for path in found if path.exists()), found[-1])


def install(layout: Layout, built: Artifacts) -> list[Path]:
    """Copy kernel, images and manifest, write the files, and return all their paths.

    Files of an earlier installation are replaced if they are unchanged. A changed file stays, and
    the new one is written beside it as NAME.new. Raises InnkeeperError and OSError.
    """
    changed = set(_changed(layout.prefix))
    made: list[Path] = []
    for source in (built.bzImage, built.vmlinux, built.disk, built.initrd, built.verity, built.manifest):
        made.append(_put(layout.prefix / "share" / source.name, partial(copy_sparse, source), changed))
    for path, text in layout.texts(built.verity.read_text()).items():
        made.append(_put(path, partial(_write, text), changed))
    _record(layout.prefix, made)
    return made


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file's content and keep its holes."""
    with open(source, "rb", buffering=0) as reader, open(target, "wb", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        end = 0
        while (start := _next_data(reader.fileno(), end)) is not None:
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            writer.seek(start)
            while start < end:
                start += os.sendfile(writer.fileno(), reader.fileno(), start, end - start)


def _next_data(descriptor: int, at: int) -> int | None:
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None  # there is only a hole up to the end
        raise


def _write(text: str, path: Path) -> None:
    path.write_text(text)


def _put(path: Path, write: Callable[[Path], None], changed: set[Path]) -> Path:
    """Write a file under a temporary name and rename it when it is complete.

    Returns the path, which is NAME.new if the operator has changed the file.
    """
    target = path.with_name(f"{path.name}.new") if path in changed else path
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target) as part:
        write(part)
        part.chmod(0o644)
    return target


def _record(prefix: Path, made: Iterable[Path]) -> None:
    before = _read(prefix)
    entries = {**before, **{str(path.relative_to(prefix)): hash_file(path) for path in made}}
    (prefix / RECORD).write_text(json.dumps({"version": 1, "files": entries}, indent=1) + "\n")


def _read(prefix: Path) -> dict[str, str]:
    try:
        document = json.loads((prefix / RECORD).read_text())
    except FileNotFoundError:
        return {}
    entries: dict[str, str] = document["files"]
    return entries


def _changed(prefix: Path) -> list[Path]:
    """Return the files that differ from what was installed."""
    return [prefix / name for name, sha256 in _read(prefix).items() if (prefix / name).exists() and hash_file(prefix / name) != sha256]


def uninstall(prefix: Path) -> list[Path]:
    """Remove what `install` created, and folders that are empty then.

    Returns the changed files, which stay. Raises InnkeeperError if there is no installation.
    """
    if not (prefix / RECORD).exists():
        raise InnkeeperError(f"{prefix} holds no installation", hint="was it another --prefix?")
    kept = _changed(prefix)
    for name in _read(prefix):
        if prefix / name not in kept:
            (prefix / name).unlink(missing_ok=True)
    (prefix / RECORD).unlink()
    for folder in (prefix / "etc", prefix / "share", prefix):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return kept
