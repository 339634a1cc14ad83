"""The command `build`: write the guest's kernel and images as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Variant

if TYPE_CHECKING:
    from innkeeper.guest.config import Guest
    from innkeeper.guest.store import Store


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
    golden: bool = False,
    provenance: Path | None = None,
    sign_key: Path | None = None,
    trace: Path | None = None,
    push: str = "",
    progress: str = "auto",
    kernel_config_diff: bool = False,
    only_print: bool = False,
    json: bool = False,
) -> None:
    """Build the guest: vmlinux, bzImage, config, rootfs.erofs, innkeeper.img, innkeeper.initrd, verity.toml, manifest.json.

    guest.toml describes another guest than the default one. Options of this command come before what the files say.
    """
    if progress == "plain":
        from innkeeper.progress import be_plain

        be_plain()
    if oci:
        others: dict[str, object] = {"--file": files, "--kernel-source": kernel_source, "--sbom": sbom, "--lock": lock}
        others |= {
            "--refresh": refresh,
            "--golden": golden,
            "--provenance": provenance,
            "--sign-key": sign_key,
            "--trace": trace,
            "--push": push,
        }
        others |= {"--kernel-config-diff": kernel_config_diff, "--print": only_print, "--json": json}
        _build_oci(output, others)
        return
    if sign_key is not None and provenance is None:
        raise InnkeeperError("--sign-key needs --provenance", hint="name the file to write: --provenance FILE")
    if sign_key is not None and not sign_key.is_file():
        raise InnkeeperError(f"--sign-key {sign_key}: no such file")
    from innkeeper import paths
    from innkeeper.guest import pins, plan_report
    from innkeeper.guest.store import Store

    guest = _guest(files or [], variant, kernel, kernel_source, sbom)
    file = lock.absolute() if lock else pins.file_of(files or [], new=refresh)
    store = Store(paths.store_root(), pins.Pins({}, file) if refresh else pins.Pins.read(file))
    if kernel_config_diff:
        print(plan_report.kernel_changes(guest, store), end="")
    elif only_print or json:
        print(plan_report.report(guest, as_json=json, store=store), end="")
    else:
        _build(guest, output, _Lock(file, store, lock is not None, refresh, golden), provenance, sign_key, trace, push)


@dataclass(frozen=True)
class _Lock:
    """The lock file of a build, and what is to be done with it."""

    file: Path
    store: "Store"
    compare: bool
    refresh: bool
    golden: bool


def _build(guest: "Guest", output: Path, lock: _Lock, provenance: Path | None, key: Path | None, trace: Path | None, push: str) -> None:
    """Build the guest and write the files about the build. The trace is written for a build that fails, too."""
    try:
        manifest = _write_lock(guest, output, lock) if lock.refresh or lock.golden else _build_guest(guest, output, lock)
        if provenance is not None:
            from innkeeper.guest import provenance as statement

            statement.write(manifest, provenance, key)
        if push:
            from innkeeper.guest import published

            more = {file.name: file for file in (provenance,) if file is not None}
            print(published.push({**_files(output, manifest), **more}, push))
    finally:
        if trace is not None:
            from innkeeper.guest import trace as chrome

            chrome.write(trace)
    print(output)


def _files(output: Path, manifest: Path) -> dict[str, Path]:
    """Return the files of a build by name, with its manifest."""
    from json import loads

    return {**{name: output / name for name in loads(manifest.read_text())["outputs"]}, manifest.name: manifest}


def _build_guest(guest: "Guest", output: Path, lock: _Lock) -> Path:
    """Build the guest, compare it with its lock file if asked for, and return the manifest. Raises InnkeeperError."""
    from innkeeper.guest import lockfile, pins
    from innkeeper.guest.pipeline import build_guest

    if lock.compare:
        pins.document(lock.file)  # before the build, which takes long
    manifest = build_guest(guest, output, store=lock.store)["manifest.json"]
    if lock.compare and (changes := lockfile.compare(manifest, lock.file)):
        told = "\n  ".join([f"the build is not the one of {lock.file}:", *changes])
        raise InnkeeperError(told, hint="if that is intended: --golden writes the new hashes, --refresh also takes new packages")
    return manifest


def _write_lock(guest: "Guest", output: Path, lock: _Lock) -> Path:
    """Build the guest, write its lock file, and return the manifest. Raises InnkeeperError.

    It is written with the packages of today, or only with the hashes of the results.
    """
    from innkeeper import progress
    from innkeeper.guest import lockfile, pins
    from innkeeper.guest.pipeline import build_guest
    from innkeeper.guest.store import Store

    if lock.refresh and lock.golden:
        raise InnkeeperError("--refresh and --golden cannot be used together", hint="--refresh writes the hashes too")
    known = pins.Pins.read(lock.file) if lockfile.is_current(lock.file) else pins.Pins({}, lock.file)
    if lock.golden and not known.builders:
        raise InnkeeperError(f"--golden: {lock.file} has no packages", hint="write it: --refresh")
    if lock.refresh:
        before, known = known, lockfile.refreshed(guest, lock.file)
        for line in lockfile.package_changes(before, known):
            progress.note(line)
    manifest = build_guest(guest, output, store=Store(lock.store.root, known))["manifest.json"]
    for line in lockfile.golden_changes(manifest, lock.file):
        progress.note(line)
    lockfile.write(lock.file, known, manifest)
    return manifest


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
            "lock", "--lock", kind=flags.PATH, metavar="FILE", help="Take its packages, and fail unless the results are those it has."
        ),
        flags.switch(
            "refresh", "--refresh", help="Take the packages that the mirror has now, write the lock file, and print what changed."
        ),
        flags.switch("golden", "--golden", help="Write the hashes of the results into the lock file. Its packages stay."),
        flags.single(
            "provenance", "--provenance", kind=flags.PATH, metavar="FILE", help="Write the provenance: an in-toto statement (SLSA 1)."
        ),
        flags.single("sign_key", "--sign-key", kind=flags.PATH, metavar="KEY", help="Sign it with a private key in PEM (a DSSE envelope)."),
        flags.single("trace", "--trace", kind=flags.PATH, metavar="FILE", help="Write the times of the steps as a Chrome trace."),
        flags.single("push", "--push", metavar="REGISTRY/NAME", help="Push the files as an OCI artefact, and print its reference."),
        flags.single("progress", "--progress", choices=("auto", "plain"), default="auto", help="plain: lines, on a terminal too."),
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
        "build --refresh",
        "build --golden",
        "build --provenance provenance.json --sign-key key.pem",
        "build --push localhost:5000/guests/web:1",
        "build --progress plain --trace trace.json",
        "build --oci",
    ),
)
