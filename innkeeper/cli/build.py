"""The command `build`: write the guest's kernel and images as files."""

from pathlib import Path
from typing import get_args

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Variant

EXAMPLES = "Examples:  build;  build --output /srv/guest;  build --variant debug;  build --kernel debian;  build --oci"


def build(
    output: Path = Path("out"), variant: Variant = "release", kernel: str = "ours", kernel_source: str = "", oci: bool = False
) -> None:
    """Build the guest: vmlinux, bzImage, config, rootfs.erofs, innkeeper.img, innkeeper.initrd, verity.toml, manifest.json."""
    if oci:
        if kernel_source:
            raise InnkeeperError("--kernel-source cannot be used with --oci", hint="leave one of them out")
        from innkeeper.guest.oci_package import build_command

        build_command(output)
    else:
        from innkeeper.guest.kernel_choice import check_source, check_word
        from innkeeper.guest.pipeline import build_outputs

        build_outputs(output, variant, check_source(kernel_source, kernel) if kernel_source else check_word(kernel))
    print(output)


COMMAND = flags.Command(
    name="build",
    run=build,
    flags=(
        flags.single("output", "-o", "--output", kind=flags.PATH, default="out", help="Folder for the results."),
        flags.single(
            "variant", "--variant", choices=get_args(Variant), default="release", help="debug adds a shell, selinux SELinux's policy."
        ),
        flags.single("kernel", "--kernel", metavar="ours|debian|FILE", default="ours", help="debian is ready-made, for run."),
        flags.single("kernel_source", "--kernel-source", metavar="NAME", help="Of ours: linux-source-6.12 (default) or -6.1."),
        flags.switch("oci", "--oci", help="innkeeper-oci/ and innkeeper-oci.deb in place of the guest."),
    ),
    examples=(
        "build",
        "build --output /srv/guest",
        "build --variant debug",
        "build --kernel debian",
        "build --kernel-source linux-source-6.1",
        "build --oci",
    ),
)
