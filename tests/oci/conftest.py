"""Fixtures of the runtime command, and the assertion that nothing of its containers stays."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oci.oci_helpers import Bundle, Runtime
from tests.oci.suite import TABLE, remove_groups
from tests.root.container_helpers import busybox_root, cgroup2


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if TABLE in config.stash:
        terminalreporter.section("runtime-tools' validation suite: verdicts, assertions that hold / that do not, and whose fault it is")
        for line in config.stash[TABLE].splitlines():
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def oci_program() -> Path:
    """The runtime command as it is shipped: frozen, below a folder like a host's root."""
    from innkeeper.guest.oci_package import build_command

    return build_command(None)


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root; what tests write to it goes to /tmp."""
    return busybox_root(tmp_path_factory.mktemp("rootfs"))


def _mounts_at(*places: Path) -> list[str]:
    """Mounts below folders of the test's own: others on this machine come and go."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if any(str(place) in line for place in places)]


def _of(root: Path) -> list[str]:
    """Processes of the command with this root, those it left in containers too: until a program is executed, the command line stays."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(root) in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.fixture
def runtime(oci_program: Path, rootfs: Path, tmp_path: Path) -> Iterator[Runtime]:
    """The command with a root of this test's own; afterwards no state, process, group or mount of it is left."""
    group = f"innkeeper-oci-test-{os.getpid()}"
    runtime = Runtime(oci_program, tmp_path / "state", group)
    parent = cgroup2() / group
    parent.mkdir()
    yield runtime
    left = sorted(path.name for path in runtime.root.iterdir()) if runtime.root.is_dir() else []
    for id in left:
        runtime.try_("delete", "--force", id)
    groups = [path.name for path in parent.iterdir() if path.is_dir()]
    for name in groups:
        (parent / name / "cgroup.kill").write_text("1")
        shutil.rmtree(parent / name, ignore_errors=True)
    if not groups:
        parent.rmdir()
    remove_groups(group)
    assert (left, groups, _of(runtime.root), _mounts_at(tmp_path, rootfs)) == ([], [], [], [])


@pytest.fixture
def bundle(runtime: Runtime, rootfs: Path, tmp_path: Path) -> Bundle:
    """A bundle of busybox."""
    return Bundle(tmp_path / "bundle", rootfs, runtime.group)
