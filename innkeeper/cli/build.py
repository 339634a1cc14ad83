"""The command `build`: write the guest's kernel and images as files."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Variant

if TYPE_CHECKING:
    from innkeeper.guest.config import Guest


def build(
    output: Path = Path("out"),
    files: list[Path] | None = None,
    variant: str = "",
    kernel: str = "",
    kernel_source: str = "",
    oci: bool = False,
    sbom: bool = False,
    lock: Path | None = None,
    refresh: bool = False,
    kernel_config_diff: bool = False,
    only_print: bool = False,
    json: bool = False,
) -> None:
    """Build the guest: vmlinux, bzImage, config, rootfs.erofs, innkeeper.img, innkeeper.initrd, verity.toml, manifest.json.

    guest.toml describes another guest than the default one. Options of this command come before what the files say.
    """
    if oci:
        others = {"--file": files, "--kernel-source": kernel_source, "--sbom": sbom, "--lock": lock, "--refresh": refresh}
        _build_oci(output, {**others, "--kernel-config-diff": kernel_config_diff, "--print": only_print, "--json": json})
        return
    from innkeeper.guest import plan_report

    guest = _guest(files or [], variant, kernel, kernel_source, sbom)
    if kernel_config_diff:
        print(plan_report.kernel_changes(guest), end="")
    elif only_print or json:
        print(plan_report.report(guest, as_json=json), end="")
    else:
        _build_guest(guest, output, lock, refresh=refresh)


def _build_guest(guest: "Guest", output: Path, lock: Path | None, *, refresh: bool) -> None:
    """Build the guest, and compare it with its lock file or write that. Raises InnkeeperError."""
    from innkeeper.guest.pipeline import build_guest

    if refresh and lock is None:
        raise InnkeeperError("--refresh needs --lock", hint="name the lock file to write: --lock guest.lock")
    built = build_guest(guest, output)
    if lock is not None:
        _compare(built["manifest.json"], lock, refresh=refresh)
    print(output)


def _compare(manifest: Path, lock: Path, *, refresh: bool) -> None:
    """Compare a build with its lock file, or write the file and print what is new. Raises InnkeeperError."""
    from innkeeper import progress
    from innkeeper.guest import lockfile

    changes = lockfile.compare(manifest, lock) if lock.exists() or not refresh else []
    if refresh:
        for line in changes:
            progress.note(line)
        lockfile.write(manifest, lock)
    elif changes:
        raise InnkeeperError("\n  ".join([f"the build is not the one of {lock}:", *changes]), hint="if that is intended, add --refresh")


def _build_oci(output: Path, others: dict[str, object]) -> None:
    for name, value in others.items():
        if value:
            raise InnkeeperError(f"{name} cannot be used with --oci", hint="leave one of them out")
    from innkeeper.guest.oci_package import build_command

    build_command(output)
    print(output)


def _guest(files: list[Path], variant: str, kernel: str, kernel_source: str, sbom: bool) -> "Guest":
    """Return the guest that the files describe, with the options over them. Raises InnkeeperError."""
    from dataclasses import replace

    from innkeeper.guest import config, config_file
    from innkeeper.guest.kernel import SOURCES
    from innkeeper.guest.kernel_choice import OURS, check_source, check_word

    guest = config_file.read(files)
    word = check_source(kernel_source, kernel or OURS) if kernel_source else check_word(kernel) if kernel else ""
    part = guest.kernel
    if word:
        part = replace(part, use=OURS, source=word) if word in SOURCES else replace(part, use=word)
    outputs = tuple(dict.fromkeys([*guest.outputs, *(["sbom"] if sbom else [])]))
    return config.check(replace(guest, kernel=part, variant=variant or guest.variant, outputs=outputs))


COMMAND = flags.Command(
    name="build",
    run=build,
    flags=(
        flags.single("output", "-o", "--output", kind=flags.PATH, default="out", help="Folder for the results."),
        flags.repeated("files", "-f", "--file", kind=flags.PATH, metavar="GUEST.TOML", help="Describes the guest; later files win."),
        flags.single(
            "variant", "--variant", choices=get_args(Variant), default="release", help="debug adds a shell, selinux SELinux's policy."
        ),
        flags.single("kernel", "--kernel", metavar="ours|debian|FILE", default="ours", help="debian is ready-made, for run."),
        flags.single("kernel_source", "--kernel-source", metavar="NAME", help="Of ours: linux-source-6.12 (default) or -6.1."),
        flags.switch("oci", "--oci", help="innkeeper-oci/ and innkeeper-oci.deb in place of the guest."),
        flags.switch("sbom", "--sbom", help="Also sbom.cdx.json, a bill of materials in the format of CycloneDX."),
        flags.single(
            "lock", "--lock", kind=flags.PATH, metavar="FILE", help="Fail unless packages and results are those of the lock file."
        ),
        flags.switch("refresh", "--refresh", help="With --lock: write the file, and print what changed."),
        flags.switch("kernel_config_diff", "--kernel-config-diff", help="Print what kernel.fragments change, and compile nothing."),
        flags.switch("only_print", "--print", help="Print the configuration and the steps, and build nothing."),
        flags.switch("json", "--json", help="The same as JSON."),
    ),
    examples=(
        "build",
        "build --output /srv/guest",
        "build --variant debug",
        "build --kernel debian",
        "build --kernel-source linux-source-6.1",
        "build -f guest.toml",
        "build -f guest.toml --print",
        "build --sbom",
        "build --lock guest.lock",
        "build --oci",
    ),
)
