"""Runs inside the builder: lays the guest's root out and makes the erofs image of it.

    assemble.py VARIANT

Reads /rootfs (layout, skeleton/, init.c), /agent and /gateway (frozen), and /policies.

Leaves `root.erofs` and `files.json` (path -> size) in /out. Nothing here may depend on time, on the
order of a listing or on paths.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path("/tmp/root")
AGENT = ROOT / "usr/lib/innkeeper"
VARIANTS = ("debug", "selinux")
"""What may open a line of the layout: the variant that alone has it."""
UUID = "696e6e6b-6565-7065-7200-000000000001"
"""Of the root file system: fixed, because a random one would change every image."""
LATE_LIBRARIES = ("cygrpc", "libstdc")
LARGE_CLUSTER = 65536
"""Size of the compressed clusters of libraries that no boot reads, in bytes.

Large ones are smaller, and as fast for programs that read most of them.
"""


def main(variant: str) -> None:
    """Assemble the root for `variant` and write the image."""
    lay_out(Path("/rootfs/layout"), variant)
    shutil.copytree("/rootfs/skeleton", ROOT, dirs_exist_ok=True)
    shutil.copytree("/agent", AGENT, symlinks=True)
    add_program(Path("/gateway"))
    compile_init()
    copy_libraries()
    if variant == "debug":
        link_applets()
    normalise_modes()
    (ROOT / "etc/ld.so.conf").write_text("/usr/lib/innkeeper/_internal\n")
    subprocess.run(["/sbin/ldconfig", "-X", "-r", ROOT], check=True)
    shutil.rmtree(ROOT / "var/cache", ignore_errors=True)
    files = [path for path in sorted(ROOT.rglob("*")) if path.is_file() and not path.is_symlink()]
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in files}
    Path("/out/files.json").write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n")
    make_image()


def lay_out(layout: Path, variant: str) -> None:
    """Make what the layout file lists (its head describes the format)."""
    for line in layout.read_text().splitlines():
        words = line.split("#")[0].split()
        if words and words[0] in VARIANTS:
            if words[0] != variant:
                continue
            words = words[1:]
        match words:
            case []:
                pass
            case ["dir", mode, path]:
                (ROOT / path[1:]).mkdir(parents=True)
                (ROOT / path[1:]).chmod(int(mode, 8))
            case ["link", path, target]:
                (ROOT / path[1:]).symlink_to(target)
            case ["copy", mode, source, path]:
                copy(Path(source), ROOT / path[1:], mode)
            case ["files", mode, pattern]:
                found = sorted(Path("/").glob(pattern[1:]))
                if not found:
                    raise SystemExit(f"rootfs/layout: the builder has no {pattern}")
                for file in found:
                    copy(file, ROOT / file.relative_to("/"), mode)
            case _:
                raise SystemExit(f"rootfs/layout: cannot read {line!r}")


def add_program(folder: Path) -> None:
    """Lay another frozen program into the agent's folder.

    A library that both have must be the same one.
    """
    for path in sorted(folder.rglob("*")):
        target = AGENT / path.relative_to(folder)
        if path.is_symlink():
            if not target.is_symlink():
                target.symlink_to(os.readlink(path))
        elif path.is_dir():
            target.mkdir(exist_ok=True)
        elif not target.exists():
            shutil.copyfile(path, target)
        elif target.read_bytes() != path.read_bytes():
            raise SystemExit(f"{path.relative_to(folder)} of {folder.name} is not the agent's")


def copy(source: Path, target: Path, mode: str) -> None:
    """Copy a file of the builder's, or what a link leads to, with a mode in octal."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(int(mode, 8))


def compile_init() -> None:
    """Compile /sbin/init: freestanding, static, without a trace of the compiler or its folders."""
    flags = ["-Os", "-static", "-no-pie", "-fno-pie", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-ident"]
    flags += ["-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,-z,noexecstack", "-s"]
    subprocess.run(["gcc", *flags, "-o", ROOT / "usr/sbin/init", "/rootfs/init.c"], check=True)


def copy_libraries() -> None:
    """Copy the shared libraries that programs and libraries of the root lack (glibc).

    They are found as ld.so would find them.
    """
    internal = AGENT / "_internal"
    files = [path for path in sorted(ROOT.rglob("*")) if path.is_file() and not path.is_symlink()]
    wanted: dict[str, Path] = {}
    for path in [path for path in files if path.read_bytes()[:4] == b"\x7fELF"]:
        env = {"LD_LIBRARY_PATH": str(internal), "PATH": "/usr/bin:/bin"}
        told = subprocess.run(["ldd", path], env=env, capture_output=True, text=True, check=False)
        if told.returncode and "not a dynamic executable" not in told.stderr:
            raise SystemExit(f"ldd {path}: {told.stderr}")
        if "not found" in told.stdout:
            raise SystemExit(f"{path} needs a library that is not there:\n{told.stdout}")
        for name, place in re.findall(r"(?:(\S+) => )?(/\S+) \(0x", told.stdout):
            wanted.setdefault(name or place, Path(place))
    for name, place in sorted(wanted.items()):
        if place.is_relative_to(internal):
            continue
        target = ROOT / (name[1:] if name.startswith("/") else str(place)[1:])
        target = ROOT / re.sub(r"^lib(64)?/", r"usr/lib\1/", str(target.relative_to(ROOT)))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place.resolve(), target)
        target.chmod(0o755)


def link_applets() -> None:
    """Make busybox's applets reachable by name."""
    applets = subprocess.run(["/usr/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        path = ROOT / "usr/bin" / applet
        if applet not in ("busybox", "init") and not path.exists():
            path.symlink_to("busybox")


def normalise_modes() -> None:
    """Give files of the agent and the skeleton modes by what they are.

    They must not depend on anybody's umask.
    """
    # The root's own and that of /etc came with the skeleton's folders, which a checkout makes by
    # the user's umask.
    for path in [*sorted(AGENT.rglob("*")), AGENT, *sorted((ROOT / "etc").rglob("*")), ROOT / "etc", ROOT]:
        if not path.is_symlink():
            program = path.is_dir() or path.parent == AGENT or ".so" in path.name
            path.chmod(0o755 if program else 0o644)


def make_image() -> None:
    """Write /out/root.erofs with fixed UUID and times, owned by root, compressed by lz4.

    docs/freezing.md has the reasons. One worker gives one order.
    """
    epoch = os.environ["SOURCE_DATE_EPOCH"]
    options = [f"-T{epoch}", "--all-time", f"-U{UUID}", "--all-root", "-x-1", "-zlz4hc", "--workers=1"]
    hints = Path("/tmp/compress-hints")
    hints.write_text("".join(f"{LARGE_CLUSTER} {library}\n" for library in LATE_LIBRARIES))
    options += [f"--compress-hints={hints}"]
    subprocess.run(["mkfs.erofs", "--quiet", *options, "/out/root.erofs", ROOT], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
