"""Unified kernel images under real firmware: put together twice, signed for Secure Boot, and booted with the root that has the hash.

The default tests have Debian's kernel in the image, which firmware starts but which cannot open the root: a second kernel of ours would
take ten minutes. That one boots with `--long`.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper import paths
from innkeeper.engine.host import virtual_machine
from innkeeper.errors import InnkeeperError
from innkeeper.guest import uki
from innkeeper.guest.config import Guest, KernelPart
from innkeeper.guest.pipeline import build_guest
from innkeeper.guest.store import Store
from innkeeper.guest.uki import SigningKey
from innkeeper.vm import VirtualMachine, VmConfig, qemu
from tests.eventually import poll
from tests.needs import needs
from tests.vm.command import innkeeper, succeed

pytestmark = [pytest.mark.vm, needs("root", "ovmf", "openssl")]

FIRMWARE = Path("/usr/share/OVMF")
SNAKEOIL = Path("/usr/share/ovmf/PkKek-1-snakeoil.key"), Path("/usr/share/ovmf/PkKek-1-snakeoil.pem")
"""The key in OVMF_VARS_4M.snakeoil.fd, which is known to everybody, and its certificate."""
TIMEOUT = 180
GUEST = """
outputs = ["kernel", "root", "verity", "disk", "uki"]
[kernel]
use = "ours"
parameters = ["INNKEEPER_CHANNEL=virtio-serial"]
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's kernel as a step's folder with a bzImage."""
    made = build_guest(Guest(outputs=("kernel",), kernel=KernelPart(use="debian")), None)
    folder = tmp_path_factory.mktemp("kernel") / made["bzImage"].parent.name  # which is in the ids of the steps
    folder.mkdir()
    shutil.copyfile(made["bzImage"], folder / "bzImage")
    return folder


@pytest.fixture(scope="module")
def verity() -> Path:
    """The step of the default root's hash tree."""
    return build_guest(Guest(outputs=("verity",), kernel=KernelPart(use="debian")), None)["verity.toml"].parent


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    """Debian's key without its pass phrase."""
    plain = tmp_path_factory.mktemp("key") / "key.pem"
    subprocess.run(["openssl", "rsa", "-in", SNAKEOIL[0], "-passin", "pass:snakeoil", "-out", plain], check=True, stderr=subprocess.DEVNULL)
    return SigningKey(plain, SNAKEOIL[1])


def section(image: Path, name: str, folder: Path) -> str:
    """The content of a section of a PE image."""
    out = folder / name.removeprefix(".")
    subprocess.run(["objcopy", "-O", "binary", f"--only-section={name}", image, out], check=True)
    return out.read_bytes().rstrip(b"\0").decode()


def firmware(folder: Path, image: Path, variables: str) -> list[str]:
    """Options of QEMU for firmware, its variables and a disk with `image` as what firmware starts by default."""
    (folder / "esp" / "EFI" / "BOOT").mkdir(parents=True)
    shutil.copyfile(image, folder / "esp" / "EFI" / "BOOT" / "BOOTX64.EFI")
    shutil.copyfile(FIRMWARE / variables, folder / "variables.fd")
    code = "OVMF_CODE_4M.secboot.fd" if "snakeoil" in variables else "OVMF_CODE_4M.fd"
    return [
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE / code}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={folder / 'variables.fd'}"),
        *("-drive", f"if=none,id=esp,format=raw,file=fat:rw:{folder / 'esp'}", "-device", "ide-hd,drive=esp"),
    ]


def console_of(folder: Path, image: Path, *ends: str) -> str:
    """What a machine with Secure Boot prints that starts `image`, until one of `ends` is in it or the machine ends."""
    words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "256M"]
    words += ["-machine", "q35,vmport=off,graphics=off,usb=off,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
    words += ["-accel", "tcg", "-cpu", "max", *firmware(folder, image, "OVMF_VARS_4M.snakeoil.fd")]
    console = folder / "console"
    with subprocess.Popen([*words, "-serial", f"file:{console}"], stdin=subprocess.DEVNULL) as machine:
        try:
            poll(lambda: machine.poll() is not None or any(end in text(console) for end in ends), TIMEOUT)
        finally:
            machine.kill()
    return text(console)


def text(console: Path) -> str:
    return console.read_text(errors="replace") if console.exists() else ""


def test_the_image_has_hash_and_words_and_is_the_same_elsewhere(kernel: Path, verity: Path, tmp_path: Path) -> None:
    here = uki.make_uki(Store(paths.store_root()), kernel, verity, ("a=b c",)) / uki.NAME
    elsewhere = Store(tmp_path / "cache" / "store")
    elsewhere.root.mkdir(parents=True)
    for builder in paths.store_root().glob("builder-*/"):
        shutil.copytree(builder, elsewhere.root / builder.name)
    (tmp_path / "cache" / "buildah").symlink_to(paths.store_root().parent / "buildah")
    assert (uki.make_uki(elsewhere, kernel, verity, ("a=b c",)) / uki.NAME).read_bytes() == here.read_bytes()
    line = section(here, ".cmdline", tmp_path)
    hashed = json.loads((verity / "verity.json").read_text())
    assert f' sha256 {hashed["root_hash"]} {hashed["salt"]}" root=/dev/dm-0 ' in line
    assert line.endswith('a="b c"')
    assert "ID=innkeeper\n" in section(here, ".osrel", tmp_path)
    assert section(here, ".uname", tmp_path) == uki.release(kernel / "bzImage")


def test_firmware_with_secure_boot_starts_the_signed_image_only(kernel: Path, verity: Path, key: SigningKey, tmp_path: Path) -> None:
    store = Store(paths.store_root())
    unsigned = uki.make_uki(store, kernel, verity, ("panic_print=0", "loglevel=7")) / uki.NAME
    signed = uki.make_uki(store, kernel, verity, ("panic_print=0", "loglevel=7"), key) / uki.NAME
    for name in ("signed", "unsigned"):
        (tmp_path / name).mkdir()
    started = console_of(tmp_path / "signed", signed, "Linux version", "Access Denied")
    assert "Linux version" in started and "Access Denied" not in started
    refused = console_of(tmp_path / "unsigned", unsigned, "Linux version", "Access Denied")
    assert "Access Denied" in refused and "Linux version" not in refused


def test_a_certificate_of_another_key_signs_nothing(kernel: Path, verity: Path, key: SigningKey, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "genrsa", "-out", other, "2048"], check=True, capture_output=True)
    store = Store(paths.store_root())
    wrong = tmp_path / "certificate.pem"
    shutil.copyfile(key.certificate, wrong)
    wrong.write_text(wrong.read_text() + "\n")  # another file, so another step than that of the right key
    with pytest.raises(InnkeeperError, match="cannot sign the unified kernel image"):
        uki.make_uki(store, kernel, verity, ("quiet",), SigningKey(other, wrong))


@contextmanager
def booted(built: Path, disk: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualMachine]:
    """A machine of ours whose firmware starts the image of `built`: without -kernel, the rest as always."""
    plain, more = qemu.arguments, firmware(folder, built / uki.NAME, "OVMF_VARS_4M.fd")

    def without_kernel(launch: qemu.Launch) -> list[str]:
        words = plain(launch)
        for option in ("-kernel", "-append"):
            at = words.index(option)
            del words[at : at + 2]
        return [*words, *more]

    config = VmConfig(kernel=built / "vmlinux", root=disk, memory_mib=256, machine_type="q35", calls_out=False)
    with monkeypatch.context() as patched, virtual_machine(config) as vm:
        patched.setattr(qemu, "arguments", without_kernel)
        vm.start()
        yield vm


@pytest.mark.long
def test_a_machine_with_firmware_boots_the_root_that_has_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It compiles a kernel of its own: ten minutes on two cores."""
    (tmp_path / "guest.toml").write_text(GUEST)
    built = tmp_path / "out"
    succeed("build", "-f", str(tmp_path / "guest.toml"), "-o", str(built))
    assert "CONFIG_EFI_STUB=y" in (built / "config").read_text()
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    with booted(built, built / "innkeeper.img", tmp_path / "good", monkeypatch) as vm:
        vm.wait_ready(TIMEOUT)
    disk = tmp_path / "innkeeper.img"
    shutil.copyfile(built / "innkeeper.img", disk)
    with disk.open("r+b") as file:
        file.seek((3 << 20) + 1024)  # the super block of the root
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with booted(built, disk, tmp_path / "bad", monkeypatch) as vm:
        with pytest.raises(InnkeeperError):
            vm.wait_ready(TIMEOUT)
        assert re.search("device-mapper: verity: .* data block 0 is corrupted", text(vm.console_path))
    refused = innkeeper("build", "-f", str(tmp_path / "guest.toml"), "--kernel", "debian", "--print")
    assert (refused.returncode, b"outputs = 'uki' cannot be used with kernel.use = 'debian'" in refused.stderr) == (125, True)
