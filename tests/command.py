"""The command `test`: run the tests of the source tree with pytest."""

import os
import signal
import sys
from dataclasses import dataclass

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError
from tests.paths import ROOT
from tests.side_by_side import SideBySide, interrupt


@dataclass(frozen=True)
class Part:
    """One folder of tests: its title, and what it needs of the host.

    `apart` are files and folders in it that a second process runs, beside the rest.
    """

    title: str
    programs: tuple[str, ...] = ()
    root: bool = False
    guest: bool = False
    apart: tuple[str, ...] = ()


PARTS = {
    "tests/unit": Part("units, no root", ("busybox", "libseccomp.so.2", "mkfs.erofs", "openssl", "sfdisk")),
    "tests/contract": Part("the wire's contract, no root", ("go",)),
    "tests/root": Part(
        "real system calls",
        (
            "gcc",
            "go",
            "busybox",
            "runc",
            "crun",
            "buildah",
            "skopeo",
            "mkfs.erofs",
            "iptables-save",
            "docker-registry",
            "ip",
            "unshare",
        ),
        root=True,
    ),
    "tests/oci": Part(
        "the runtime command",
        ("busybox", "buildah", "mmdebstrap", "runc", "crun", "go", "podman", "ctr", "unshare"),
        root=True,
    ),
    "tests/shim": Part(
        "our containerd shim",
        (
            "qemu-system-x86_64",
            "virtiofsd",
            "ctr",
            "cni",
            "ip",
            "iptables-save",
            "curl",
            "busybox",
            "mke2fs",
            "mkfs.erofs",
            "veritysetup",
            "go",
            "docker-registry",
            "skopeo",
            "buildah",
            "mmdebstrap",
            "gcc",
            "runc",
        ),
        root=True,
        guest=True,
    ),
    "tests/vm": Part(
        "boots the guest",
        (
            "qemu-system-x86_64",
            "ovmf",
            "virtiofsd",
            "buildah",
            "skopeo",
            "mmdebstrap",
            "mkfs.erofs",
            "mke2fs",
            "openssl",
            "veritysetup",
            "mkswap",
            "sfdisk",
            "busybox",
            "redis-server",
            "redis-benchmark",
            "nginx",
            "docker-registry",
            "curl",
            "gcc",
            "go",
            "ctr",
            "ip",
            "runc",
        ),
        guest=True,
        # Those that share templates and the pool, and look for VMs and makers of templates that others would leave.
        apart=(
            "tests/vm/run",
            "tests/vm/test_bench_guest.py",
            "tests/vm/test_pool.py",
            "tests/vm/test_snapshots.py",
            "tests/vm/test_templates.py",
        ),
    ),
    "tests/escape": Part(
        "escapes, natively and in the guest", ("gcc", "qemu-system-x86_64", "virtiofsd", "mkfs.erofs"), root=True, guest=True
    ),
    "tests/interop": Part(
        "Kata's own shim",
        ("qemu-system-x86_64", "go", "ctr", "cni", "ip", "iptables-save", "busybox", "mke2fs", "mkfs.erofs", "unshare"),
        root=True,
        guest=True,
    ),
    "tests/kubernetes": Part(
        "a real Kubernetes",
        (
            "qemu-system-x86_64",
            "virtiofsd",
            "ctr",
            "runc",
            "cni",
            "ip",
            "unshare",
            "busybox",
            "mke2fs",
            "mkfs.erofs",
            "curl",
            "openssl",
            "go",
        ),
        root=True,
        guest=True,
    ),
}

ALONE = ("tests/interop",)
"""Parts that compare the whole host before and after: nothing runs beside them."""

KUBERNETES = "tests/kubernetes"


def test(words: list[str]) -> None:
    """Run unit tests, tests that need root, and tests that boot the guest. Paths and options go to pytest.

    Without paths and options the folders are run two at a time. What this host lacks is left out with
    the reason; with CI=true that is a failure. Useful options are -k EXPRESSION, for tests whose names
    match, and --long, for tests that take minutes. Kubernetes is built for tests/kubernetes only if that
    is named: otherwise its tests are left out until it is in the cache.
    """
    os.chdir(ROOT)
    paths = [word for word in words if not word.startswith("-") and os.path.exists(word.partition("::")[0])]
    others = [word for word in words if word not in paths]
    if missing := next((word for word in others if word.startswith("tests/")), ""):
        raise InnkeeperError(f"{missing}: no such file or folder")
    chosen = {folder: part for folder, part in PARTS.items() if os.path.isdir(folder) and (not paths or _touches(paths, folder))}
    needs_guest = _install(chosen)
    if not words:
        sys.exit(_run_all(needs_guest))
    if needs_guest:
        _build_guest()
        if any(os.path.normpath(path).startswith(KUBERNETES) for path in paths):
            _build_kubernetes()
    argv = [sys.executable, "-m", "pytest", *(paths or chosen), *others]
    sys.stdout.flush()
    os.execv(sys.executable, argv)


def _touches(paths: list[str], folder: str) -> bool:
    return any(os.path.normpath(path).startswith(folder) or folder.startswith(os.path.normpath(path)) for path in paths)


def _install(chosen: dict[str, Part]) -> bool:
    """Install the programs that the parts need, report what is missing, and return whether a guest is needed."""
    from innkeeper import programs, progress

    needs_guest = False
    for folder, part in chosen.items():
        lacking = []
        if part.root and os.geteuid() != 0:
            lacking.append("needs root")
        elif part.programs:
            try:
                programs.require_all(part.programs)
            except InnkeeperError as error:
                lacking.append(error.message)
        progress.note(f"{folder:<16} {part.title}{': tests are left out: ' + '; '.join(lacking) if lacking else ''}")
        needs_guest |= part.guest and not lacking
    return needs_guest


def _build_guest() -> None:
    """Build the guest before pytest starts: it shows progress, where a test would look as if it hung."""
    from innkeeper import guest

    guest.build(None)


def _build_kubernetes() -> None:
    """Build Kubernetes' programs before pytest starts, for the same reason."""
    from tests.kubernetes import programs

    programs.etcd()
    programs.kube()


def _run_all(needs_guest: bool) -> int:
    """Run every part and return pytest's exit status.

    The guest is built first. Beside tests its compilation took more than twice the time, and the
    longest part waits for it.
    """
    if needs_guest:
        _build_guest()
    run = SideBySide()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        run.start(*(folder for folder, part in PARTS.items() if not part.guest))
        for folder, part in PARTS.items():
            if part.guest and folder not in ALONE:
                for words in processes_of(folder, part):
                    run.start(*words)
        run.wait()
        run.start(*ALONE)
        return run.finish()
    except BaseException:
        run.stop()
        raise


def processes_of(folder: str, part: Part) -> list[tuple[str, ...]]:
    """Return pytest's arguments for each process that runs a part."""
    if not part.apart:
        return [(folder,)]
    return [part.apart, (folder, *(f"--ignore={path}" for path in part.apart))]


COMMAND = flags.Command(
    name="test",
    run=test,
    arguments=(flags.words("words", "[PATH...]", required=False),),
    examples=("test", "test tests/unit", "test -k redis -x", "CI=true test --long"),
    raw=True,
)
