"""Each source of our kernel gets the configuration that the fragments ask for; and the second one boots."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper import guest, paths
from innkeeper.guest import kconfig
from innkeeper.guest.kernel import SOURCES, Source, configure_kernel
from innkeeper.guest.store import Store
from tests.images import busybox_image
from tests.needs import needs
from tests.paths import ROOT
from tests.vm.command import detached, inspected, succeed

pytestmark = [pytest.mark.vm, needs("root")]

NOT_WANTED = {"MITIGATION_SLS", "MITIGATION_CALL_DEPTH_TRACKING"}
"""Guards that Linux leaves off by default: the first costs size, the second is another answer to Retbleed."""

OLDER = list(SOURCES)[1]


@pytest.fixture(scope="module", params=list(SOURCES.values()), ids=list(SOURCES))
def config(request: pytest.FixtureRequest) -> str:
    """The whole configuration of a kernel source; nothing is compiled for it."""
    source: Source = request.param
    step = configure_kernel(source, Store(paths.store_root()), ROOT / "kernel-config")
    text = (step / "config").read_text()
    assert f"Linux/x86_64 {source.version}." in text
    return text


def test_a_source_has_every_symbol_as_asked(config: str) -> None:
    """The build refuses another result; this is the same comparison, from outside."""
    found = kconfig.parse_config(config)
    (version,) = re.findall(r"Linux/x86_64 (\S+) ", config)
    settings = kconfig.read_fragments(ROOT / "kernel-config", "x86_64", kconfig.parse_version(version))
    assert [str(lost) for lost in kconfig.lost(settings, found)] == []
    assert "MODULES" not in found


def test_no_guard_against_speculation_is_left_out(config: str) -> None:
    """allnoconfig switches off what Linux has on by default, and later versions bring more of these."""
    left_out = set(re.findall(r"# CONFIG_(MITIGATION_\w+) is not set", config))
    assert left_out <= NOT_WANTED
    assert kconfig.parse_config(config)["CPU_MITIGATIONS"] == "y"


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    guest.boot_files("release", OLDER)  # compiled here, because a command is given less time than that
    with detached(busybox_image(), "sleep", "1000", options=("--kernel", OLDER, "--memory", "128m")) as id:
        yield id


@pytest.mark.long
def test_the_second_source_boots_and_inspect_says_so(container: str) -> None:
    assert re.fullmatch(rf"{re.escape(SOURCES[OLDER].version)}\.\d+-innkeeper\n", succeed("exec", container, "uname", "-r"))
    assert inspected(container)["kernel"].startswith(f"ours ({OLDER} {SOURCES[OLDER].version}.")


@pytest.mark.long
def test_a_container_of_the_second_source_is_contained(container: str) -> None:
    status = succeed("exec", container, "cat", "/proc/self/status")
    assert {"NoNewPrivs:\t1", "Seccomp:\t2"} <= set(status.splitlines())
    assert succeed("exec", container, "cat", "/sys/fs/cgroup/memory.max") == f"{128 << 20}\n"
    assert succeed("exec", container, "cat", "/proc/self/attr/apparmor/current").endswith("(enforce)\n")


@pytest.mark.long
def test_the_manifest_names_the_second_source(tmp_path: Path) -> None:
    succeed("build", "--kernel-source", OLDER, "--output", str(tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["kernel"]["source"].startswith(f"{OLDER} {manifest['kernel']['version']}.")
    assert OLDER in {entry["name"] for entry in manifest["inputs"] if "kernel" in entry.get("builders", ())}
    assert {"vmlinux", "bzImage", "config"} <= manifest["outputs"].keys()
