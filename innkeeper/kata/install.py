"""Install the guest below a prefix, and remove exactly what was installed."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts
from innkeeper.installation import Installation, check_handlers_are_free, copy_file
from innkeeper.kata import files

QEMU = (Path("/opt/kata/bin/qemu-system-x86_64"), Path("/usr/bin/qemu-system-x86_64"))
VIRTIOFSD = (Path("/opt/kata/libexec/virtiofsd"), Path("/usr/libexec/virtiofsd"), Path("/usr/lib/virtiofsd"))
CLOUD_HYPERVISOR = (Path("/opt/kata/bin/cloud-hypervisor"), Path("/usr/bin/cloud-hypervisor"))


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
    the new one is written beside it as NAME.new. Raises InnkeeperError, also if `shim install` has
    put a handler of the same name there, and OSError.
    """
    check_handlers_are_free(layout.configurations, layout.prefix / "share/shim/runtimeclass.yaml")
    installation = Installation(layout.prefix)
    made: list[Path] = []
    for source in (built.bzImage, built.vmlinux, built.disk, built.initrd, built.verity, built.manifest):
        made.append(installation.put(layout.prefix / "share" / source.name, partial(copy_file, source)))
    for path, text in layout.texts(built.verity.read_text()).items():
        made.append(installation.put_text(path, text))
    installation.save()
    return made


def uninstall(prefix: Path) -> list[Path]:
    """Remove what `install` created, and folders that are empty then.

    Returns the changed files, which stay. Raises InnkeeperError if there is no installation.
    """
    return Installation(prefix).remove()
