"""The command `build`: write the guest's kernel and images as files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Variant

if TYPE_CHECKING:
    from innkeeper.guest.config import Guest
    from innkeeper.guest.store import Store
    from innkeeper.guest.uki import SigningKey


@dataclass(frozen=True)
class Options:
    """The options of the command. Each has the flag's meaning (see COMMAND)."""

    output: Path = Path("out")
    files: list[Path] = field(default_factory=list)
    variant: str = ""
    kernel: str = ""
    kernel_source: str = ""
    oci: bool = False
    sbom: bool = False
    sbom_format: str = ""
    lock: Path | None = None
    refresh: bool = False
    golden: bool = False
    provenance: Path | None = None
    sign_key: Path | None = None
    uki_key: Path | None = None
    uki_certificate: Path | None = None
    trace: Path | None = None
    push: str = ""
    progress: str = "auto"
    kernel_config_diff: bool = False
    only_print: bool = False
    json: bool = False


_ABOUT_A_BUILD = ("refresh", "golden", "provenance", "sign_key", "uki_key", "uki_certificate", "trace", "push")
"""Options that have no meaning if nothing is built."""
_ABOUT_A_GUEST = (
    *("files", "variant", "kernel", "kernel_source", "sbom", "sbom_format", "lock", "kernel_config_diff", "only_print", "json"),
    *_ABOUT_A_BUILD,
)
"""Options that have no meaning for the runtime command."""


def build(**given: Any) -> None:
    """Build the guest: kernel, root file system, disk image, initrd and manifest.

    Writes vmlinux, bzImage, config, rootfs.erofs, innkeeper.img, innkeeper.initrd, verity.toml and
    manifest.json.

    guest.toml describes another guest than the default one. Options of this command come before
    what the files say.
    """
    options = Options(**given)
    _set_progress(options.progress)
    if options.oci:
        _refuse(options, "oci", _ABOUT_A_GUEST)
        _build_oci(options.output)
        return
    _check_keys(options)
    from innkeeper import paths
    from innkeeper.guest import pins, plan_report
    from innkeeper.guest.store import Store

    guest = _guest(options)
    file = options.lock.absolute() if options.lock else pins.file_of(options.files, new=options.refresh)
    store = Store(paths.store_root(), pins.Pins({}, file) if options.refresh else pins.Pins.read(file))
    if options.kernel_config_diff:
        _refuse(options, "kernel_config_diff", ("json", "only_print", *_ABOUT_A_BUILD))
        print(plan_report.kernel_changes(guest, store), end="")
    elif options.only_print:
        _refuse(options, "only_print", _ABOUT_A_BUILD)
        print(plan_report.report(guest, as_json=options.json, store=store), end="")
    else:
        _build(guest, options, file, store)


def _set_progress(kind: str) -> None:
    from innkeeper import progress

    if kind == "plain":
        progress.be_plain()
    elif kind == "json":
        progress.be_json()


def _refuse(options: Options, one: str, others: tuple[str, ...]) -> None:
    """Raise InnkeeperError if one of the options `others` was given beside `one`."""
    names = {flag.field: flag.names[-1] for flag in COMMAND.flags}
    if given := next((name for name in others if getattr(options, name)), ""):
        raise InnkeeperError(f"{names[given]} cannot be used with {names[one]}", hint="leave one of them out")


def _check_keys(options: Options) -> None:
    if options.sign_key is not None and options.provenance is None:
        raise InnkeeperError("--sign-key needs --provenance", hint="name the file to write: --provenance FILE")
    if (options.uki_key is None) != (options.uki_certificate is None):
        raise InnkeeperError("--uki-key and --uki-certificate need each other", hint="both are files in PEM")
    for name in ("sign_key", "uki_key", "uki_certificate"):
        file = getattr(options, name)
        if file is not None and not file.is_file():
            raise InnkeeperError(f"--{name.replace('_', '-')} {file}: no such file")
    if options.uki_key is not None and b"ENCRYPTED" in options.uki_key.read_bytes():
        raise InnkeeperError(f"--uki-key {options.uki_key}: it has a pass phrase", hint="nobody is asked for it: give the key without one")


def _build(guest: "Guest", options: Options, file: Path, store: "Store") -> None:
    """Build the guest and write the files about the build.

    The trace is written for a build that fails, too.
    """
    from innkeeper.guest.uki import SigningKey

    key = SigningKey(options.uki_key, options.uki_certificate) if options.uki_key and options.uki_certificate else None
    reference = ""
    try:
        if options.refresh or options.golden:
            manifest = _write_lock(guest, options, file, store, key)
        else:
            manifest = _build_guest(guest, options, file, store, key)
        if options.provenance is not None:
            from innkeeper.guest import provenance as statement

            statement.write(manifest, options.provenance, options.sign_key)
        if options.push:
            from innkeeper.guest import published

            more = {one.name: one for one in (options.provenance,) if one is not None}
            reference = published.push({**_files(options.output, manifest), **more}, options.push)
    finally:
        if options.trace is not None:
            from innkeeper.guest import trace as chrome

            chrome.write(options.trace)
    if options.json:
        from json import dumps

        from innkeeper.guest import build_result

        print(dumps(build_result.document(options.output, manifest, store, reference), indent=1))
    else:
        print(*([reference] if reference else []), options.output, sep="\n")


def _files(output: Path, manifest: Path) -> dict[str, Path]:
    """Return the files of a build by name, with its manifest."""
    from json import loads

    return {**{name: output / name for name in loads(manifest.read_text())["outputs"]}, manifest.name: manifest}


def _build_guest(guest: "Guest", options: Options, file: Path, store: "Store", key: "SigningKey | None") -> Path:
    """Build the guest, compare it with its lock file if asked for, and return the manifest.

    Raises InnkeeperError.
    """
    from innkeeper.guest import lockfile, pins
    from innkeeper.guest.pipeline import build_guest

    if options.lock:
        pins.document(file)  # before the build, which takes long
    manifest = build_guest(guest, options.output, store=store, key=key)["manifest.json"]
    if options.lock and (changes := lockfile.compare(manifest, file)):
        told = "\n  ".join([f"the build is not the one of {file}:", *changes])
        raise InnkeeperError(told, hint="if that is intended: --golden writes the new hashes, --refresh also takes new packages")
    return manifest


def _write_lock(guest: "Guest", options: Options, file: Path, store: "Store", key: "SigningKey | None") -> Path:
    """Build the guest, write its lock file, and return the manifest. Raises InnkeeperError.

    It is written with the packages of today, or only with the hashes of the results.
    """
    from innkeeper import progress
    from innkeeper.guest import lockfile, pins
    from innkeeper.guest.pipeline import build_guest

    if options.refresh and options.golden:
        raise InnkeeperError("--refresh and --golden cannot be used together", hint="--refresh writes the hashes too")
    known = pins.Pins.read(file) if lockfile.is_current(file) else pins.Pins({}, file)
    if options.golden and not known.builders:
        raise InnkeeperError(f"--golden: {file} has no packages", hint="write it: --refresh")
    if options.refresh:
        before, known = known, lockfile.refreshed(guest, file)
        for line in lockfile.package_changes(before, known, store):
            progress.note(line)
    store.pins = known
    manifest = build_guest(guest, options.output, store=store, key=key)["manifest.json"]
    for line in lockfile.golden_changes(manifest, file):
        progress.note(line)
    lockfile.write(file, known, manifest)
    return manifest


def _build_oci(output: Path) -> None:
    from innkeeper.guest.oci_package import build_command

    build_command(output)
    print(output)


def _guest(options: Options) -> "Guest":
    """Return the guest that the files describe, with the options over them.

    Raises InnkeeperError.
    """
    from dataclasses import replace

    from innkeeper.guest import config, config_file
    from innkeeper.guest.kernel import SOURCES
    from innkeeper.guest.kernel_choice import OURS, check_source, check_word

    guest = config_file.read(options.files)
    word = check_word(options.kernel) if options.kernel else ""
    if options.kernel_source:
        word = check_source(options.kernel_source, options.kernel or OURS)
    part = guest.kernel
    if word:
        part = replace(part, use=OURS, source=word) if word in SOURCES else replace(part, use=word)
    bills = {"cyclonedx": "sbom", "spdx": "spdx"}
    more = [bills[options.sbom_format or "cyclonedx"]] if options.sbom or options.sbom_format else []
    guest = config.check(
        replace(guest, kernel=part, variant=options.variant or guest.variant, outputs=tuple(dict.fromkeys([*guest.outputs, *more])))
    )
    if options.uki_key is not None and "uki" not in guest.outputs:
        raise InnkeeperError(
            "--uki-key: the guest has no output uki", hint='add it to outputs in guest.toml: outputs = ["kernel", "disk", "uki"]'
        )
    return guest


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
            "sbom_format", "--sbom-format", choices=("cyclonedx", "spdx"), help="spdx: sbom.spdx.json in its place. Implies --sbom."
        ),
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
        flags.single(
            "uki_key", "--uki-key", kind=flags.PATH, metavar="KEY", help="Sign the unified kernel image with a private key in PEM."
        ),
        flags.single("uki_certificate", "--uki-certificate", kind=flags.PATH, metavar="FILE", help="The key's certificate in PEM."),
        flags.single("trace", "--trace", kind=flags.PATH, metavar="FILE", help="Write the times of the steps as a Chrome trace."),
        flags.single("push", "--push", metavar="REGISTRY/NAME", help="Push the files as an OCI artefact, and print its reference."),
        flags.single(
            "progress", "--progress", choices=("auto", "plain", "json"), default="auto", help="plain: lines; json: an event per line."
        ),
        flags.switch("kernel_config_diff", "--kernel-config-diff", help="Print what kernel.fragments change, and compile nothing."),
        flags.switch("only_print", "--print", help="Print the configuration and the steps, and build nothing."),
        flags.switch("json", "--json", help="Print the result as JSON: steps, times, outputs, hashes. With --print, the plan."),
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
        "build --sbom-format spdx",
        "build -f guest.toml --uki-key db.key --uki-certificate db.crt",
        "build --json --progress json",
        "build --lock guest.lock",
        "build --refresh",
        "build --golden",
        "build --provenance provenance.json --sign-key key.pem",
        "build --push localhost:5000/guests/web:1",
        "build --progress plain --trace trace.json",
        "build --oci",
    ),
)
