"""What is installed from a wheel: the package with its data files, and the parts of the tree that building the guest needs."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from innkeeper import paths
from innkeeper.guest.store import Store
from innkeeper.image.defaults import CAPABILITIES
from innkeeper.image.seccomp import load_profile
from tests.needs import needs
from tests.paths import ROOT

PARTS = (
    *("agent", "bench", "docs", "innkeeper", "kernel-config", "manual", "rootfs", "tests"),
    *("guest.lock", "pyproject.toml", "setup.py", "README.md", "LICENSE"),
)
BACKEND = "setuptools>=70.1"
"""What pyproject.toml names, at the version that makes wheels by itself."""

pytestmark = needs("module:pip")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a wheel of this tree is unpacked. It is built of a copy: setuptools writes beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, source / part)
    backend = Store(paths.store_root()).step("setuptools", {"python": sys.version, "requirement": BACKEND}, install_backend)
    program = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    environment = {**os.environ, "PYTHONPATH": str(backend)}
    subprocess.run(
        [sys.executable, "-c", program], cwd=source, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def install_backend(out: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(out), BACKEND]
    subprocess.run(pip, stdin=subprocess.DEVNULL, check=True)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_the_package_is_whole(installed: Path) -> None:
    assert files(installed / "innkeeper") >= files(ROOT / "innkeeper")
    for part in ("agent", "kernel-config", "rootfs"):
        assert files(installed / "innkeeper/source" / part) == files(ROOT / part)
    assert (installed / "innkeeper/source/guest.lock").read_bytes() == (ROOT / "guest.lock").read_bytes()


def test_the_default_seccomp_profile_is_found(installed: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import innkeeper.image.seccomp as seccomp\n"
        f"print(seccomp.__file__); print(seccomp.load_profile(None, {CAPABILITIES!r}))"
    )
    told = subprocess.run([sys.executable, "-P", "-c", program], cwd=installed, capture_output=True, text=True, check=True).stdout
    assert told == f"{installed}/innkeeper/image/seccomp.py\n{load_profile(None, CAPABILITIES)}\n"


def test_man_pages_are_installed(installed: Path) -> None:
    (pages,) = installed.glob("innkeeper-*.data/data/share/man/man1")
    assert (pages / "innkeeper-run.1").stat().st_size > 0
    assert not (pages / "innkeeper-bench.1").exists()


def command(installed: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The installed command line, run in an empty folder."""
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); from innkeeper.cli import main; sys.exit(main({list(words)!r}))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    argv = [sys.executable, "-P", "-c", program]
    (installed / "elsewhere").mkdir(exist_ok=True)
    return subprocess.run(argv, cwd=installed / "elsewhere", env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_measuring_and_testing_are_left_to_a_clone(installed: Path) -> None:
    assert not (installed / "bench").exists()
    assert not (installed / "tests").exists()
    for verb in ("bench", "test"):
        done = command(installed, verb, "--help")
        told = f"innkeeper: {verb} is part of the source tree, and not installed: run ./build.py {verb} in a clone\n"
        assert (done.returncode, done.stdout, done.stderr) == (125, "", told)
    listed = command(installed, "--help").stdout
    assert "  run " in listed
    assert "  bench " not in listed
    report = json.loads(command(installed, "doctor", "--json").stdout)
    assert report["parts"]["test"]["reasons"] == ["the tests are part of the source tree: run them in a clone"]
