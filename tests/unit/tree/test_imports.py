"""Which package may import which, read from the source without importing it."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.unit.import_rules import DOCUMENT, PACKAGES, insert

OURS = ("agent", "innkeeper", "bench")
ALLOWED = {package.name: package.imports for package in PACKAGES}
"""The longest matching prefix decides. A module may always import from its own package."""
WITHOUT_A_RULE = ("agent", "innkeeper")
"""Packages that hold nothing but versions, and whose name is a prefix of everything."""
VERSIONS = frozenset(("agent.VERSION", "agent.KATA_AGENT_VERSION", "agent.KATA_API_VERSION", "innkeeper.__version__"))
"""What every module may import of them."""


def _modules() -> list[tuple[str, Path]]:
    found = []
    for top in OURS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append((name, path))
    return found


def _imports(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _below(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def _rule(name: str) -> tuple[str, tuple[str, ...]]:
    home = max((prefix for prefix in ALLOWED if _below(name, prefix)), key=len)
    return home, ALLOWED[home]


def forbidden(name: str, path: Path) -> list[str]:
    """Return what module `name` imports of ours although its package may not."""
    if name in WITHOUT_A_RULE:
        return []
    home, allowed = _rule(name)
    ours = [module for module in _imports(name, path) if any(_below(module, top) for top in OURS)]
    return [module for module in ours if module not in VERSIONS and not any(_below(module, prefix) for prefix in (home, *allowed))]


def test_the_table_in_the_documentation_is_this_one() -> None:
    text = DOCUMENT.read_text()
    assert text == insert(text), "write it anew: python -m tests.unit.import_rules"


@pytest.mark.parametrize(("name", "path"), _modules(), ids=[name for name, _ in _modules()])
def test_import_direction(name: str, path: Path) -> None:
    assert forbidden(name, path) == []


PEOPLES = {"rich": ("innkeeper.cli", "bench", "innkeeper.progress")}
"""Libraries that talk to people, and the only packages that may use each."""
SILENT = ("innkeeper.wire", "innkeeper.client", "innkeeper.vm", "innkeeper.image", "innkeeper.guest", "innkeeper.engine", "innkeeper.kata")
"""Libraries: they return what they have to say, or report progress through innkeeper.progress."""


@pytest.mark.parametrize(("name", "path"), _modules(), ids=[name for name, _ in _modules()])
def test_only_the_command_line_talks_to_people(name: str, path: Path) -> None:
    imported = set(_imports(name, path))
    for library, packages in PEOPLES.items():
        assert any(_below(name, package) for package in packages) or not any(_below(module, library) for module in imported)
    if any(_below(name, package) for package in SILENT) and "builder_scripts" not in path.parts:
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"], f"{path} prints"


STANDARD = ROOT / "innkeeper/guest/builder_scripts/stdlib_shims"
PID1 = [
    (n, p)
    for n, p in _modules()
    if (_below(n, "agent") and not _below(n, "agent.gateway") and not _below(n, "agent.oci")) or _below(n, "innkeeper.wire")
]
"""The runtime command and the gateway are frozen with the original ones."""


@pytest.mark.parametrize(("name", "path"), PID1, ids=[name for name, _ in PID1])
def test_the_guests_small_standard_modules_have_what_is_asked_of_them(name: str, path: Path) -> None:
    for small in STANDARD.glob("*.py"):
        asked = {module.removeprefix(f"{small.stem}.") for module in _imports(name, path) if _below(module, small.stem)} - {small.stem}
        assert asked <= vars(_load(small)).keys()


def _load(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(f"small_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("agent.linux.mount", "from agent.sandbox import Sandbox", ["agent.sandbox.Sandbox"]),
        ("agent.linux.mount", "import ctypes\nfrom agent.errors import StepFailed", []),
        ("agent.container.init.child", "def f():\n    import innkeeper.guest", ["innkeeper.guest"]),
        ("innkeeper.wire.frames", "from ..client import Client", ["innkeeper.client.Client"]),
        ("innkeeper.cli.run", "import agent.early_boot", ["agent.early_boot"]),
        ("innkeeper.cli.app", "from bench import measure", ["bench.measure"]),
    ],
)
def test_the_check_itself(tmp_path: Path, name: str, source: str, wrong: list[str]) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert forbidden(name, path) == wrong
