"""The sources of our own kernel: how one is chosen, and what the manifest and `inspect` say of it."""

from pathlib import Path

import pytest

from innkeeper.cli.build import build
from innkeeper.errors import InnkeeperError
from innkeeper.guest import kernel_choice
from innkeeper.guest.builder import Builder
from innkeeper.guest.kernel import SOURCES, VERSION, Source
from innkeeper.guest.store import Store


def test_the_default_source_is_the_one_of_the_builders_release() -> None:
    assert next(iter(SOURCES.values())) == Source(VERSION, "trixie")
    assert {name: (source.series, source.suite) for name, source in SOURCES.items()} == {
        "linux-source-6.12": ((6, 12), "trixie"),
        "linux-source-6.1": ((6, 1), "bookworm"),
    }


def test_a_source_is_compiled_by_its_own_releases_compiler(tmp_path: Path) -> None:
    builder = SOURCES["linux-source-6.1"].builder(Store(tmp_path))
    assert builder.suite == "bookworm"
    assert {"gcc", "linux-source-6.1"} <= set(builder.packages)
    assert "linux-source-6.12" not in builder.packages


@pytest.mark.parametrize("name", SOURCES)
def test_the_name_of_a_source_is_a_word_for_the_kernel(name: str) -> None:
    assert kernel_choice.check_word(name) == kernel_choice.check_source(name, "ours") == name


def test_other_sources_and_other_kernels_are_refused() -> None:
    with pytest.raises(InnkeeperError, match=r"--kernel-source linux-source-2\.4: no such kernel source") as caught:
        kernel_choice.check_source("linux-source-2.4", "ours")
    assert caught.value.hint == "use linux-source-6.12 or linux-source-6.1"
    with pytest.raises(InnkeeperError, match=r"--kernel-source linux-source-6\.1 cannot be used with --kernel debian"):
        kernel_choice.check_source("linux-source-6.1", "debian")


@pytest.mark.parametrize(("word", "package"), [("ours", "linux-source-6.12"), *((name, name) for name in SOURCES)])
def test_what_is_said_of_a_kernel_names_its_source(word: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "build_kernel", lambda source, store, fragments, extra: tmp_path / source.package)
    monkeypatch.setattr(Builder, "package_list", lambda self: [{"name": name, "version": "6.x-1"} for name in self.packages])
    kernel = kernel_choice.make_kernel(word, Store(tmp_path), tmp_path)
    assert kernel.step.name == package
    assert kernel.facts == {"from": "ours", "version": SOURCES[package].version, "source": f"{package} 6.x-1"}
    assert kernel.description == f"ours ({package} 6.x-1)"
    assert package in [entry["name"] for entry in kernel.packages]


def test_the_runtime_command_has_no_kernel_source() -> None:
    with pytest.raises(InnkeeperError, match="--kernel-source cannot be used with --oci"):
        build(oci=True, kernel_source="linux-source-6.1")
