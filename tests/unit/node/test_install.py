"""Our shim on a node: what is installed runs by itself, and exactly that is removed."""

import json
import os
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper import manifests
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts
from innkeeper.kata.files import RUNTIME_CLASSES
from innkeeper.node import Layout, files, install, packages, remove_templates, uninstall
from innkeeper.paths import TEMPLATES_VARIABLE
from innkeeper.shim import settings
from innkeeper.shim.main import PROGRAM
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.vm import template
from tests.needs import needs
from tests.unit.node.guest import guest

pytestmark = needs("module:pyroute2")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Artifacts, list[Path]]:
    """An installation of small files in place of a guest."""
    folder = tmp_path_factory.mktemp("node")
    layout = Layout(folder / "opt/innkeeper", folder / "etc", folder / "bin")
    layout.bin.mkdir()
    built = guest(folder)
    return layout, built, install(layout, built)


def run(program: Path, *words: str) -> bytes:
    """Run a program of the installation in another folder, with nothing of this environment."""
    return subprocess.run(
        [program, *words], cwd="/", env={"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, capture_output=True, check=True
    ).stdout


def test_the_shim_runs_by_itself(installed: tuple[Layout, Artifacts, list[Path]]) -> None:
    layout, _, _ = installed
    assert (layout.bin / PROGRAM).readlink() == layout.prefix / "bin" / PROGRAM
    assert run(layout.bin / PROGRAM, "-v").startswith(PROGRAM.encode())
    assert pb.RuntimeInfo.FromString(run(layout.bin / PROGRAM, "-info")).name == files.RUNTIME
    code = "import innkeeper.shim.serve, innkeeper.shim.network_helper, pyroute2; print(pyroute2.__file__, innkeeper.__file__)"
    launcher = (layout.prefix / "bin" / PROGRAM).read_text().splitlines()[1]
    python = launcher.split()[1]
    found = run(Path(python), "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(layout.library)!r}); {code}").decode().split()
    assert all(path.startswith(f"{layout.library}/") for path in found)


def test_the_configuration_is_what_the_shim_reads(installed: tuple[Layout, Artifacts, list[Path]]) -> None:
    layout, _, _ = installed
    text = layout.configuration.read_text()
    given = tomllib.loads(text)
    assert Path(given["kernel"]).read_text() == "vmlinux"
    assert Path(given["root"]).read_text() == "root.erofs"
    assert text.count("\n# ") > 20  # every key is still described
    for name in ("qemu", "virtiofsd"):
        given.setdefault(name, given["kernel"])
    whole = layout.etc / "whole.toml"
    whole.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items()))
    assert settings.load(str(whole)).kernel == Path(given["kernel"])
    whole.unlink()


@pytest.mark.parametrize(("version", "names"), [(2, ["innkeeper"]), (3, ["innkeeper", "innkeeper-erofs"])])
def test_handlers(installed: tuple[Layout, Artifacts, list[Path]], version: int, names: list[str]) -> None:
    layout, _, _ = installed
    document = tomllib.loads((layout.etc / f"innkeeper/containerd-version-{version}.toml").read_text())
    assert document["version"] == version
    runtimes = document["plugins"][manifests.CRI[version]]["containerd"]["runtimes"]
    assert list(runtimes) == names
    assert all(runtime["options"]["ConfigPath"] == str(layout.configuration) for runtime in runtimes.values())
    assert [runtime.get("snapshotter") for runtime in runtimes.values()] == [None, "erofs"][: len(names)]
    classes = (layout.share / "runtimeclass.yaml").read_text()
    assert all(f"handler: {name}\n" in classes for name in names)


def test_exactly_that_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        name: path
        for name, path in packages.sources().items()
        if name.parts[:2] in (("innkeeper", "__init__.py"), ("innkeeper", "dial.py"))
    }
    monkeypatch.setattr(packages, "sources", lambda: few)
    layout = Layout(tmp_path / "opt", tmp_path / "etc", tmp_path / "bin")
    (tmp_path / "etc").mkdir()
    built = guest(tmp_path)
    before = set(tmp_path.rglob("*"))
    install(layout, built)
    layout.configuration.write_text("mine")
    built.vmlinux.write_text("a newer kernel")
    stale = layout.library / "innkeeper/of_an_older_version.py"
    record = layout.prefix / "installed-shim.json"
    document = json.loads(record.read_text())
    stale.write_text("")
    document["files"][str(stale.relative_to(layout.prefix))] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    record.write_text(json.dumps(document))
    made = install(layout, built)
    assert layout.configuration.with_name("shim.toml.new") in made
    assert (layout.share / "vmlinux").read_text() == "a newer kernel"
    assert not stale.exists()
    assert uninstall(layout.prefix) == [layout.configuration]
    layout.configuration.unlink()
    layout.configuration.parent.rmdir()
    assert set(tmp_path.rglob("*")) == before


def test_the_templates_of_the_guest_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "sources", dict)
    monkeypatch.setenv(TEMPLATES_VARIABLE, str(tmp_path / "templates"))
    layout = Layout(tmp_path / "opt", tmp_path / "etc", tmp_path / "bin")
    install(layout, guest(tmp_path))
    layout.configuration.write_text(f'templates = "{tmp_path}/templates"\n')
    root = tmp_path / "templates"
    for key, kernel in (("ours", layout.share / "vmlinux"), ("another", tmp_path / "vmlinux")):
        with template.making(key):
            (root / "ram").write_text("")
            (root / "state").write_text("")
            template.publish(key, root / "ram", root / "state", kernel)
    with template.found("ours"):
        assert remove_templates(layout.prefix) == [root / "ours"]
    assert remove_templates(layout.prefix) == []
    assert sorted(os.listdir(root)) == [".another.making", "another"]
    assert template.remove_with_kernel(tmp_path) == []
    assert not root.exists()
    assert remove_templates(layout.prefix) == []


def test_handlers_of_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node has each handler once: `kata install` has ours too."""
    monkeypatch.setattr(packages, "sources", dict)
    built, layout = guest(tmp_path), Layout(tmp_path / "opt", tmp_path / "etc", tmp_path / "bin")
    of_kata = layout.prefix / "share/runtimeclass.yaml"
    of_kata.parent.mkdir(parents=True)
    of_kata.write_text(RUNTIME_CLASSES)
    with pytest.raises(InnkeeperError, match=r"the handler innkeeper is in .*/share/runtimeclass.yaml already"):
        install(layout, built)
    install(replace(layout, handler="vm"), built)
    classes = (layout.share / "runtimeclass.yaml").read_text()
    assert "handler: vm\n" in classes and "handler: vm-erofs\n" in classes
    assert "runtimeClassName: vm\n" in (layout.share / "pod.yaml").read_text()
    assert "runtimes.vm-erofs]" in (layout.etc / "innkeeper/containerd-version-3.toml").read_text()


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InnkeeperError, match="--etc etc: containerd needs absolute paths"):
        Layout(tmp_path, Path("etc"), tmp_path)
    with pytest.raises(InnkeeperError, match="--handler A_b: a RuntimeClass has a name of lower case letters"):
        Layout(tmp_path, tmp_path, tmp_path, "A_b")
    with pytest.raises(InnkeeperError, match="holds no installation"):
        uninstall(tmp_path)
    monkeypatch.setattr(packages, "sources", dict)
    layout = Layout(tmp_path / "opt", tmp_path / "etc", tmp_path / "bin")
    layout.bin.mkdir()
    (layout.bin / PROGRAM).write_text("another one")
    with pytest.raises(InnkeeperError, match="exists, and is not of this installation"):
        install(layout, guest(tmp_path))
