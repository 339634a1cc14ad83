"""The command `build`: write the guest's kernel and images as files."""

from pathlib import Path
from typing import Annotated

import typer

from innkeeper.guest import Variant

EXAMPLES = "Examples:  build;  build --output /srv/guest;  build --variant debug;  build --kernel debian;  build --oci"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("build", epilog=EXAMPLES)(build)


def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("out"),
    variant: Annotated[Variant, typer.Option("--variant", help="debug adds a shell, selinux SELinux's policy.")] = "release",
    kernel: Annotated[str, typer.Option("--kernel", metavar="ours|debian|FILE", help="debian is ready-made, for run.")] = "ours",
    oci: Annotated[bool, typer.Option("--oci", help="innkeeper-oci/ and innkeeper-oci.deb in place of the guest.")] = False,
) -> None:
    """Build the guest: vmlinux, bzImage, config, rootfs.erofs, innkeeper.img, innkeeper.initrd, verity.toml, manifest.json."""
    if oci:
        from innkeeper.guest.oci import build_command

        build_command(output)
    else:
        from innkeeper.guest.kernel_choice import check_word
        from innkeeper.guest.pipeline import build_outputs

        build_outputs(output, variant, check_word(kernel))
    print(output)
