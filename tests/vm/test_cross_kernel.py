"""Our kernel for aarch64, made by Debian's cross compiler: its configuration, and a boot under QEMU to a first program."""

import subprocess
from pathlib import Path

import pytest

from innkeeper import paths, programs
from innkeeper.guest import cpio
from innkeeper.guest.kernel import CROSS_SOURCES, configure_kernel
from innkeeper.guest.store import Store
from tests.needs import needs
from tests.paths import ROOT
from tests.vm.command import succeed

pytestmark = [pytest.mark.vm, pytest.mark.long, needs("root")]

COMPILED = 3600
"""Seconds after which a build that compiles a kernel counts as hung: it takes ten minutes on an idle host."""
GUEST = 'architecture = "aarch64"\noutputs = ["kernel"]\n[kernel]\nparameters = ["quiet"]\n'
INIT = r"""
/* A first program without a C library: it makes the console, writes to it, and switches the machine off. */
static long call(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}

void _start(void)
{
    static const char console[] = "/dev/console", text[] = "the first program runs\n";
    call(33, -100, (long)console, 020600, 0x501);
    long fd = call(56, -100, (long)console, 1, 0);
    call(64, fd, (long)text, sizeof text - 1, 0);
    call(142, 0xfee1dead, 672274793, 0x4321fedc, 0);
    for (;;)
        ;
}
"""
COMPILE = "aarch64-linux-gnu-gcc -O1 -ffreestanding -nostdlib -static -o /out/init /out/init.c"


def test_every_option_survives() -> None:
    """It configures the kernel, which takes a minute, and compiles nothing."""
    step = configure_kernel(CROSS_SOURCES["aarch64"], Store(paths.store_root()), ROOT / "kernel-config")
    config = (step / "config").read_text()
    assert "CONFIG_ARM64=y" in config and "CONFIG_DM_INIT=y" in config and "CONFIG_VIRTIO_VSOCKETS=y" in config


def test_it_boots_to_a_first_program(tmp_path: Path) -> None:
    """It compiles another kernel: ten minutes on two cores."""
    (tmp_path / "guest.toml").write_text(GUEST)
    succeed("build", "-f", str(tmp_path / "guest.toml"), "-o", str(tmp_path / "out"), patience=COMPILED)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"Image", "vmlinux", "config", "manifest.json"}
    (tmp_path / "init.c").write_text(INIT)
    with CROSS_SOURCES["aarch64"].builder(Store(paths.store_root())) as builder:
        builder.run(["sh", "-c", COMPILE], mounts={tmp_path: "/out"})
    (tmp_path / "initrd").write_bytes(cpio.archive({"init": ((tmp_path / "init").read_bytes(), 0o755)}, folders=("dev",)))
    words = [str(programs.require("qemu-system-aarch64")), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    words += ["-machine", "virt", "-cpu", "max", "-accel", "tcg", "-m", "256M", "-serial", "stdio"]
    words += ["-kernel", str(tmp_path / "out" / "Image"), "-initrd", str(tmp_path / "initrd"), "-append", "console=ttyAMA0 panic=-1"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "the first program runs" in done.stdout, done.stdout[-3000:]
    assert "reboot: Power down" in done.stdout
