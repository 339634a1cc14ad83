"""A unified kernel image (UKI): kernel, command line and root hash in one UEFI program.

    step = make_uki(store, kernel, verity, parameters, root_folder)   # it has innkeeper.efi

ukify(1) of Debian puts it together, around systemd's stub. There is no initrd: the kernel opens the
root by itself, on the first virtio disk (`innkeeper.img`), and dm-verity checks each block against
the hash in the command line. So trust in the image is trust in the root. With a key the image is
signed for Secure Boot by sbsign(1). See the UAPI group's specification of unified kernel images.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper import __version__, progress
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest.buildah import BuildahError
from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON, Store

NAME = "innkeeper.efi"
STUB_PACKAGE = "systemd-boot-efi"
"""The package whose stub is a part of the image."""
PACKAGES = ["sbsigntool", STUB_PACKAGE, "systemd-ukify"]
FRAGMENTS = "uki"
"""The folder of `kernel-config/` with the options that only the kernel of a UKI has."""

DISK = "/dev/vda"
"""The disk with the root, `innkeeper.img`: partition 1 is the root, partition 2 its hash tree."""
SECTOR = 512

PARAMETERS = (
    "console=ttyS0",
    "panic=-1",  # a root that does not have the hash resets the VM
    "cgroup_no_v1=all",
    "net.ifnames=0",
    "random.trust_cpu=on",
    "quiet",
)
"""Words of the command line before those of the guest.

Of two that contradict each other the later one counts.
"""

_OS_RELEASE = f"""ID=innkeeper
NAME="Innkeeper guest"
PRETTY_NAME="Innkeeper guest {__version__}"
VERSION_ID={__version__}
"""

_BUILD = """
set -eu
/usr/bin/ukify build --linux=/kernel/bzImage --cmdline=@/plan/cmdline --os-release=@/plan/os-release --uname="$(cat /plan/uname)" \\
    --efi-arch=x64 --stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub --output=/out/innkeeper.efi
chmod 644 /out/innkeeper.efi
"""

_SIGN = """
set -eu
sbsign --key /key --cert /certificate --output /out/innkeeper.efi /unsigned/innkeeper.efi
sbverify --cert /certificate /out/innkeeper.efi
chmod 644 /out/innkeeper.efi
"""


@dataclass(frozen=True)
class SigningKey:
    """A private key and its X.509 certificate, files in PEM, to sign a UKI for Secure Boot."""

    key: Path
    certificate: Path


def builder(store: Store) -> Builder:
    """Return the builder that puts an image together and signs it."""
    return Builder(PACKAGES, store)


def make_uki(store: Store, kernel: Path, verity: Path, parameters: Sequence[str], key: SigningKey | None = None) -> Path:
    """Make the image and return the step's folder, which contains `innkeeper.efi`.

    `kernel` and `verity` are the steps of these names, `parameters` the guest's words for the
    command line. Raises InnkeeperError.
    """
    builds = builder(store)
    inputs: dict[str, JSON] = {
        "builder": builds.id,
        "kernel": kernel.name,
        "verity": verity.name,
        "parameters": [*PARAMETERS, *parameters],
        "disk": DISK,
        "os_release": _OS_RELEASE,
        "script": _BUILD,
    }

    def make(out: Path) -> None:
        plan = out / "plan"
        plan.mkdir()
        hashed = json.loads((verity / "verity.json").read_text())
        (plan / "cmdline").write_text(command_line(hashed, parameters))
        (plan / "os-release").write_text(_OS_RELEASE)
        (plan / "uname").write_text(release(kernel / "bzImage"))
        mounts = {kernel: "/kernel:ro", plan: "/plan:ro", out: "/out"}
        with progress.step("making the unified kernel image"), builds:
            builds.run(["sh", "-c", _BUILD], mounts=mounts, log=store.log_of(out))
        for path in plan.iterdir():
            path.unlink()
        plan.rmdir()

    unsigned = store.step("uki", inputs, make)
    return unsigned if key is None else _sign(store, builds, unsigned, key)


def _sign(store: Store, builds: Builder, unsigned: Path, key: SigningKey) -> Path:
    """Return the step's folder with the signed image.

    The store keeps the certificate's hash, and nothing of the key.
    """
    certificate = hash_file(key.certificate)

    def make(out: Path) -> None:
        mounts = {unsigned: "/unsigned:ro", key.key.absolute(): "/key:ro", key.certificate.absolute(): "/certificate:ro", out: "/out"}
        with progress.step("signing the unified kernel image"), builds:
            try:
                builds.run(["sh", "-c", _SIGN], mounts=mounts, log=store.log_of(out))
            except BuildahError as error:
                raise InnkeeperError(
                    f"{key.key} and {key.certificate} cannot sign the unified kernel image",
                    hint=f"both are PEM, and the certificate is the key's; sbsign's output is in {store.log_of(out)}",
                ) from error

    inputs: dict[str, JSON] = {"builder": builds.id, "unsigned": unsigned.name, "certificate": certificate, "script": _SIGN}
    return store.step("signed-uki", inputs, make)


def command_line(hashed: dict[str, Any], parameters: Sequence[str]) -> str:
    """Return the kernel's command line: a root on `DISK` that has the hash, and the guest's words.

    `hashed` are the parameters of the hash tree (`verity.parameters`). The format of
    `dm-mod.create` is in the kernel's Documentation/admin-guide/device-mapper/dm-init.rst, the
    target's in verity.rst.
    """
    sectors = hashed["data_blocks"] * hashed["data_block_size"] // SECTOR
    target = f"verity 1 {DISK}1 {DISK}2 {hashed['data_block_size']} {hashed['hash_block_size']} {hashed['data_blocks']} 0 sha256"
    create = f'dm-mod.create="root,,,ro,0 {sectors} {target} {hashed["root_hash"]} {hashed["salt"]}"'
    return " ".join([create, "root=/dev/dm-0", "rootfstype=erofs", "ro", *PARAMETERS, *(_quoted(word) for word in parameters)])


def _quoted(word: str) -> str:
    """Return a word with its value in quotes if it has white space.

    `config.check` has refused quotes in it.
    """
    if not any(character.isspace() for character in word):
        return word
    name, equals, value = word.partition("=")
    return f'"{word}"' if any(character.isspace() for character in name) else f'{name}{equals}"{value}"'


def release(image: Path) -> str:
    """Return the kernel's release (`uname -r`) from the header of a bzImage.

    The kernel's arch/x86/boot.rst describes it. Raises InnkeeperError for a file that is no bzImage
    or that UEFI firmware cannot start.
    """
    with image.open("rb") as file:
        head = file.read(0x8000)
    if head[0x202:0x206] != b"HdrS":
        raise InnkeeperError(f"{image}: not a bzImage")
    if head[:2] != b"MZ":
        raise InnkeeperError(f"{image}: firmware cannot start it: it is built without CONFIG_EFI_STUB")
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return head[start : head.index(b"\0", start)].split()[0].decode()
