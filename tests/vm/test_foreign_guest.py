"""A guest for aarch64 on x86-64: the root is made in an emulated builder, and a container runs in the guest, emulated too.

All of it is long: the builder, its packages and two freezes under emulation take most of an hour on a busy host, and the kernel ten
minutes. With all of that in the store, a boot takes a minute.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper import paths
from innkeeper.guest import foreign
from innkeeper.guest.builder import Builder
from innkeeper.guest.freeze import PACKAGES
from innkeeper.guest.store import Store
from tests.images import busybox_image, foreign_busybox_image
from tests.needs import needs
from tests.vm.command import detached, environment, innkeeper, inspected, succeed

pytestmark = [pytest.mark.vm, pytest.mark.long, needs("root")]

BUILT = 7200
"""Seconds after which the build counts as hung."""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest.toml of a guest that is built."""
    folder = tmp_path_factory.mktemp("aarch64")
    (folder / "guest.toml").write_text('architecture = "aarch64"\noutputs = ["kernel", "root", "sbom"]\n')
    succeed("build", "-f", str(folder / "guest.toml"), "-o", str(folder / "out"), patience=BUILT)
    return folder / "guest.toml"


@pytest.fixture(scope="module")
def container(guest: Path) -> Iterator[str]:
    with detached(foreign_busybox_image("aarch64"), "sleep", "1000", options=("--guest", str(guest), "--memory", "256m")) as id:
        yield id


def test_the_hosts_list_stays_as_it_is() -> None:
    """A program of aarch64 runs in the builder and sees its own machine; the host does not run it afterwards."""
    before = listed()
    with Builder(PACKAGES, Store(paths.store_root()), architecture="aarch64") as builder:
        assert builder.run(["uname", "-m"]).strip() == "aarch64"
        assert "unconfigured" not in builder.run(["dpkg", "--audit"])
    assert listed() == before


def test_a_handler_of_the_host_is_used() -> None:
    """In a namespace whose list has a handler, as hosts with qemu-user-static have one, nothing is registered for the builder."""
    script = (
        "from innkeeper.guest import foreign; from innkeeper.guest.builder import Builder\n"
        "with Builder([], architecture='aarch64') as builder: print(foreign.find('aarch64'), builder.run(['uname', '-m']))"
    )
    emulator = foreign.find("aarch64")
    if emulator is None:
        pytest.skip("this host has a handler, which the other tests use")
    said = subprocess.run(emulator.command([sys.executable, "-c", script], environment()), capture_output=True, text=True, check=False)
    assert said.stdout.split() == ["None", "aarch64"], said.stderr


def listed() -> list[str]:
    return sorted(path.name for path in foreign.LIST.iterdir()) if foreign.LIST.is_dir() else []


def test_every_program_of_the_root_is_for_the_machine(guest: Path, tmp_path: Path) -> None:
    subprocess.run(["fsck.erofs", f"--extract={tmp_path / 'root'}", guest.parent / "out/rootfs.erofs"], check=True, capture_output=True)
    files = [path for path in (tmp_path / "root").rglob("*") if path.is_file() and not path.is_symlink()]
    machines = {path.name: head[18:20] for path in files if (head := path.read_bytes()[:20]).startswith(b"\x7fELF")}
    assert {"agent", "init", "libpython3.13.so.1.0"} <= machines.keys()
    assert {name for name, machine in machines.items() if machine != b"\xb7\x00"} == set()


def test_each_file_has_an_origin(guest: Path) -> None:
    bill = json.loads((guest.parent / "out/sbom.cdx.json").read_text())
    assert any("arch=arm64" in str(part.get("purl")) for part in bill["components"])
    manifest = json.loads((guest.parent / "out/manifest.json").read_text())
    assert manifest["architecture"] == "aarch64"
    assert any(
        entry.get("architecture") == "arm64" and "agent" in entry["builders"] for entry in manifest["inputs"] if entry["type"] == "debian"
    )


def test_a_container_runs(container: str) -> None:
    assert succeed("exec", container, "uname", "-m").strip() == "aarch64"
    (vm,) = [inspected(container)]
    assert vm["kernel"].startswith("ours")
    status = dict(line.split(":\t", 1) for line in succeed("exec", container, "cat", "/proc/self/status").splitlines() if ":\t" in line)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    denied = innkeeper("exec", container, "unshare", "-U", "true")
    assert denied.returncode != 0 and b"Operation not permitted" in denied.stderr
    limit = succeed("exec", container, "cat", "/sys/fs/cgroup/memory.max").strip()
    assert limit == str(256 << 20)


def test_a_folder_of_the_host_and_a_network(guest: Path, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("from the host\n")
    script = "cat /shared/sent; echo from the guest > /shared/answer; ip -4 addr show eth0"
    words = ("--guest", str(guest), "-v", f"{tmp_path}:/shared", "--init", "--cpus", "2")
    said = succeed("run", "--rm", *words, foreign_busybox_image("aarch64"), "sh", "-c", script)
    assert said.startswith("from the host\n") and "inet 10.0.2.15/24" in said
    assert (tmp_path / "answer").read_text() == "from the guest\n"


def test_its_exit_status_and_streams_arrive(guest: Path) -> None:
    done = innkeeper("run", "--rm", "-i", "--guest", str(guest), foreign_busybox_image("aarch64"), "sh", "-c", "cat; exit 7", data=b"sent")
    assert (done.returncode, done.stdout) == (7, b"sent")


def test_what_only_x86_64_has_is_refused(guest: Path, container: str) -> None:
    def refused(*words: str) -> str:
        done = innkeeper(*words)
        assert done.returncode != 0
        return done.stderr.decode()

    run, image = ("run", "--rm", "--guest", str(guest)), foreign_busybox_image("aarch64")
    assert "the image is for linux/amd64, the guest is linux/arm64" in refused(*run, busybox_image(), "true")
    assert "the image is for linux/arm64, the guest is linux/amd64" in refused("run", "--rm", image, "true")
    assert "no templates are made for such a VM" in refused(*run, "--start", "template", image, "true")
    assert "a guest for aarch64 is emulated on this host" in refused(*run, "--accel", "kvm", image, "true")
    assert "a guest for aarch64 cannot be saved" in refused("snapshot", container, "arm")
