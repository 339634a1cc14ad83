"""Debian's ready-made kernel: the modules of the contract, their initrd, what is lacking, and the choice of a kernel."""

import json
import lzma
import struct
import subprocess
from pathlib import Path

import pytest

from innkeeper import paths
from innkeeper.errors import InnkeeperError
from innkeeper.guest import cpio, debian_kernel, kconfig, kernel_choice, kernel_modules
from innkeeper.guest.config import KernelPart
from innkeeper.guest.debian_kernel import INITRD_SCRIPTS, lacks, make_initrd
from innkeeper.guest.kernel_modules import ModuleFolder, read_table
from innkeeper.guest.store import FinishedSteps, NotBuilt, Store

KERNEL_CONFIG = paths.project_root() / "kernel-config"


def module_file(*facts: str) -> bytes:
    """A module as Debian packs it, of which only the section .modinfo is true."""
    strings = b"\0.modinfo\0.shstrtab\0"
    modinfo = b"\0".join(fact.encode() for fact in facts) + b"\0"
    body = modinfo + strings
    head = struct.pack("<4s12xHHIQQQIHHHHHH", b"\x7fELF", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, 3, 2)
    sections = [(0, 0, 0), (1, 64, len(modinfo)), (10, 64 + len(modinfo), len(strings))]
    return lzma.compress(head + body + b"".join(struct.pack("<IIQQQQ24x", name, 1, 0, 0, *where) for name, *where in sections))


@pytest.fixture
def modules(tmp_path: Path) -> ModuleFolder:
    drivers = tmp_path / "lib" / "modules" / "6.12" / "kernel" / "drivers"
    drivers.mkdir(parents=True)
    for name, *facts in (
        ("virtio-rng", "alias=virtio:d00000004v*", "depends="),
        ("base", "depends="),
        ("overlay", "alias=fs-overlay", "depends=base"),
        ("nft-nat", "alias=nft-expr-nat", "alias=net-pf-40", "depends=nf_nat,base"),
        ("nf_nat", "depends=base"),
        ("unasked", "depends="),
    ):
        (drivers / f"{name}.ko.xz").write_bytes(module_file("license=GPL", *facts))
    return ModuleFolder(tmp_path)


TABLE = "# comment\n\nHW_RANDOM_VIRTIO  boot virtio-rng\nOVERLAY_FS  boot overlay\nNFT_NAT  nft_nat\n"


def unpacked(archive: bytes) -> dict[str, bytes]:
    """The files of a newc archive, read by the format's own rules."""
    files: dict[str, bytes] = {}
    at = 0
    while True:
        fields = [int(archive[at + 6 + 8 * field : at + 14 + 8 * field], 16) for field in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        content = -(-(at + 110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            return files
        files[f"{name} {fields[1]:o}"] = archive[content : content + fields[6]]
        at = -(-(content + fields[6]) // 4) * 4


def test_a_module_tells_its_dependencies_and_aliases(modules: ModuleFolder) -> None:
    module = modules["nft_nat"]
    assert (module.depends, module.aliases) == (("nf_nat", "base"), ("nft-expr-nat", "net-pf-40"))
    assert kernel_modules.aliases(module) == ["nft_nat", "nft_expr_nat", "net_pf_40"]
    assert kernel_modules.aliases(modules["virtio_rng"]) == ["virtio_rng"]
    assert modules.ordered(["nft_nat", "overlay"]) == ["base", "nf_nat", "nft_nat", "overlay"]
    with pytest.raises(InnkeeperError, match="no module absent in"):
        modules.ordered(["absent"])


def test_the_initrd_loads_drivers_and_keeps_the_rest_of_the_contract(modules: ModuleFolder) -> None:
    files = unpacked(make_initrd(modules, read_table(TABLE), b"busybox"))
    assert files["boot/order 100644"].decode().splitlines() == [
        "virtio_rng",
        "base",
        "overlay redirect_dir=on index=on xino_auto=on metacopy=on",
    ]
    assert files["later/list 100644"].decode().splitlines() == [
        "nf_nat nf_nat",
        "nft_nat nf_nat nft_nat",
        "nft_expr_nat nf_nat nft_nat",
        "net_pf_40 nf_nat nft_nat",
    ]
    assert files["boot/overlay.ko 100644"] == modules["overlay"].content
    assert files["later/nft_nat.ko.xz 100644"] == modules["nft_nat"].packed
    assert files["bin/busybox 100755"] == b"busybox"
    assert {"init 100755", "later/modprobe 100755", "dev 40755", "proc 40755", "root 40755"} <= set(files)
    assert not any("unasked" in name for name in files)


def test_modprobe_loads_what_a_pattern_names_with_its_dependencies(tmp_path: Path) -> None:
    script = (
        (INITRD_SCRIPTS / "modprobe")
        .read_text()
        .replace("/run/modules/busybox insmod", "echo insmod")
        .replace("/run/modules", str(tmp_path))
    )
    (tmp_path / "list").write_text("nf_nat nf_nat\nblock_major_7_* base loop\n")

    def modprobe(name: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["bash", "-c", script, "modprobe", "-q", "--", name], capture_output=True, text=True, check=False)

    assert modprobe("block-major-7-3").stdout == f"insmod {tmp_path}/base.ko.xz\ninsmod {tmp_path}/loop.ko.xz\n"
    assert modprobe("nf-nat").stdout == f"insmod {tmp_path}/nf_nat.ko.xz\n"
    assert modprobe("dummy").returncode == 1


def test_what_is_lacking_of_the_contract_is_known_by_name() -> None:
    settings = kconfig.merge(
        [
            kconfig.parse_fragment(
                "# why\n"
                "CONFIG_NET_9P=y  # contract: folders\n"
                "CONFIG_NF_NAT=y  # contract: address translation\n"
                "CONFIG_XFS_FS=y  # contract: not in the table\n"
                'CONFIG_LSM="x"  # contract: by parameter\n'
                "CONFIG_OVERLAY_FS_INDEX=y  # contract: by option\n"
                "CONFIG_UNWINDER_GUESS=y  # smallest\n",
                "test.conf",
            )
        ]
    )
    table = read_table("NF_NAT nf_nat\nNET_9P 9pnet\n")
    assert lacks(settings, {"NF_NAT": "m", "XFS_FS": "m"}, table) == {"NET_9P": "contract: folders", "XFS_FS": "contract: not in the table"}


def test_the_table_names_symbols_of_the_fragments_once() -> None:
    settings = kconfig.read_fragments(KERNEL_CONFIG, "x86_64", (6, 12))
    symbols = [wanted.symbol for wanted in read_table((KERNEL_CONFIG / "debian-modules").read_text())]
    assert sorted(set(symbols)) == sorted(symbols)
    standing_in = [*debian_kernel.PARAMETERS, *(symbol for options in debian_kernel.OPTIONS.values() for symbol in options)]
    assert [symbol for symbol in [*symbols, *standing_in] if symbol not in settings] == []
    with pytest.raises(InnkeeperError, match="debian-modules:1: XFS_FS has no module"):
        read_table("XFS_FS boot\n")


def test_an_archive_has_each_folder_before_its_files() -> None:
    names = list(unpacked(cpio.archive({"a/b/c": (b"x", 0o644)}, folders=("dev",))))
    assert names == ["a 40755", "a/b 40755", "dev 40755", "a/b/c 100644"]
    assert cpio.archive({"a": (b"x", 0o644)}) == cpio.archive({"a": (b"x", 0o644)})


def test_a_kernel_is_ours_if_built_else_debians(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, project = Store(tmp_path), paths.project_root()
    assert kernel_choice.choose("auto", "release", store, project) == "debian"
    assert kernel_choice.choose("ours", "release", store, project) == "ours"
    assert kernel_choice.choose("auto", "selinux", store, project) == "ours"
    assert kernel_choice.choose("auto", "release", store, project, KernelPart(fragments=("more.conf",))) == "ours"
    assert kernel_choice.choose("auto", "release", store, project, KernelPart(source="linux-source-6.1")) == "ours"
    with pytest.raises(InnkeeperError, match="CONFIG_SECURITY_SELINUX_DEVELOP"):
        kernel_choice.choose("debian", "selinux", store, project)
    monkeypatch.setattr(kernel_choice, "_ours", lambda store, project, part: None)
    assert kernel_choice.choose("auto", "release", store, project) == "ours"
    with pytest.raises(NotBuilt):
        FinishedSteps(tmp_path).step("absent", {}, lambda out: None)


def test_a_kernel_in_a_file_is_kept_in_the_store(tmp_path: Path) -> None:
    image = tmp_path / "my-kernel"
    image.write_bytes(b"bits")
    word = kernel_choice.check_word(str(image))
    kernel = kernel_choice.make_kernel(word, Store(tmp_path / "store"), tmp_path)
    image.unlink()
    assert (kernel.image.read_bytes(), kernel.description, kernel.initrd) == (b"bits", str(image), None)
    assert str(tmp_path) not in json.dumps(dict(kernel.facts))
    with pytest.raises(InnkeeperError, match="--kernel absent: neither ours nor debian"):
        kernel_choice.check_word("absent")
