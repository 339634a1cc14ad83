"""The command `kata`: install the guest on a node that runs Kata Containers."""

from pathlib import Path
from typing import Annotated

import typer

PREFIX = Path("/opt/innkeeper")
Prefix = Annotated[Path, typer.Option("--prefix", metavar="DIR", help="Where everything goes.")]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    verb = typer.Typer(no_args_is_help=True, help="Lay the guest out for Kata Containers' shim, or take it away.", rich_markup_mode=None)
    verb.command("install", epilog="Examples:  kata install;  kata install --prefix /srv/innkeeper --virtiofsd /opt/virtiofsd")(install)
    verb.command("uninstall")(uninstall)
    app.add_typer(verb, name="kata")


def install(
    prefix: Prefix = PREFIX,
    qemu: Annotated[Path | None, typer.Option("--qemu", metavar="PATH", help="QEMU of the node; Kata's or Debian's by itself.")] = None,
    virtiofsd: Annotated[Path | None, typer.Option("--virtiofsd", metavar="PATH", help="The virtiofsd in Rust, likewise.")] = None,
    cloud_hypervisor: Annotated[Path | None, typer.Option("--cloud-hypervisor", metavar="PATH", help="Likewise.")] = None,
) -> None:
    """Kernel, images, the shim's configurations, containerd's handlers, RuntimeClasses and a pod. docs/kubernetes.md goes on from there."""
    from innkeeper import kata
    from innkeeper.guest import build

    layout = kata.Layout.of(prefix, qemu, virtiofsd, cloud_hypervisor)
    built = build(None)
    for path in kata.install(layout, built):
        print(path)
    print(f"\nFor a root that is checked as it is read, in [hypervisor.*]:\n{built.verity.read_text()}", end="")


def uninstall(prefix: Prefix = PREFIX) -> None:
    """Remove what `install` made. A file that was changed since stays, and is named."""
    from innkeeper import kata

    for path in kata.uninstall(prefix):
        print(f"{path} was changed and stays")
