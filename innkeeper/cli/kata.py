"""The command `kata`: install the guest on a node that runs Kata Containers."""

from pathlib import Path

from innkeeper.cli import flags

PREFIX = Path("/opt/innkeeper")


def install(
    prefix: Path = PREFIX, qemu: Path | None = None, virtiofsd: Path | None = None, cloud_hypervisor: Path | None = None, guest: str = ""
) -> None:
    """Install the guest for Kata's shim on this node.

    This writes kernel, images, the shim's configurations, containerd's handlers, RuntimeClasses and
    a pod. docs/kubernetes.md goes on from there.
    """
    from innkeeper import kata
    from innkeeper.guest import installable

    layout = kata.Layout.of(prefix, qemu, virtiofsd, cloud_hypervisor)
    built = installable(guest)
    for path in kata.install(layout, built):
        print(path)
    print(f"\nFor a root that is checked as it is read, in [hypervisor.*]:\n{built.verity.read_text()}", end="")


def uninstall(prefix: Path = PREFIX) -> None:
    """Remove what `install` made. A file that was changed since stays, and is named."""
    from innkeeper import kata

    for path in kata.uninstall(prefix):
        print(f"{path} was changed and stays")


_PREFIX = flags.single("prefix", "--prefix", kind=flags.PATH, metavar="DIR", default=PREFIX, help="Where everything goes.")

COMMAND = flags.Group(
    name="kata",
    text="Lay the guest out for Kata Containers' shim, or take it away.",
    commands=(
        flags.Command(
            name="install",
            run=install,
            flags=(
                _PREFIX,
                flags.single("qemu", "--qemu", kind=flags.PATH, help="QEMU of the node; Kata's or Debian's by itself."),
                flags.single("virtiofsd", "--virtiofsd", kind=flags.PATH, help="The virtiofsd in Rust, likewise."),
                flags.single("cloud_hypervisor", "--cloud-hypervisor", kind=flags.PATH, help="Likewise."),
                flags.single("guest", "--guest", metavar="oci:REF", help="A guest in a registry, by its digest (`build --push`)."),
            ),
            examples=("kata install", "kata install --prefix /srv/innkeeper --virtiofsd /opt/virtiofsd"),
        ),
        flags.Command(name="uninstall", run=uninstall, flags=(_PREFIX,)),
    ),
)
