"""Modules of a ready-made kernel: which ones the contract needs, and what each one says of itself.

A module file names its dependencies and aliases in its section `.modinfo`, so that neither depmod
nor an installed kernel is needed.
"""

import lzma
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from innkeeper.errors import InnkeeperError

SUFFIX = ".ko.xz"


@dataclass(frozen=True)
class Wanted:
    """The modules of one symbol. `boot`: they are loaded before the root is mounted."""

    symbol: str
    modules: tuple[str, ...]
    boot: bool


@dataclass(frozen=True)
class Module:
    """A module file. Names have underscores, as in /proc/modules."""

    name: str
    packed: bytes
    content: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def read_table(text: str) -> list[Wanted]:
    """Parse `kernel-config/debian-modules`. Raises InnkeeperError for a malformed line."""
    table = []
    for number, line in enumerate(text.splitlines(), 1):
        symbol, *words = line.split() or ["#"]
        if symbol.startswith("#"):
            continue
        boot = words[:1] == ["boot"]
        modules = tuple(map(underscored, words[boot:]))
        if not modules:
            raise InnkeeperError(f"debian-modules:{number}: {symbol} has no module")
        table.append(Wanted(symbol, modules, boot))
    return table


class ModuleFolder:
    """The modules below a folder, by name. Each is read when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._paths = {underscored(path.name.removesuffix(SUFFIX)): path for path in root.rglob(f"*{SUFFIX}")}
        self._read: dict[str, Module] = {}

    def __getitem__(self, name: str) -> Module:
        if name not in self._paths:
            raise InnkeeperError(f"no module {name} in Debian's package")
        if name not in self._read:
            self._read[name] = read_module(name, self._paths[name].read_bytes())
        return self._read[name]

    def ordered(self, names: Iterable[str]) -> list[str]:
        """Return `names` and everything that they depend on, each after its own dependencies."""
        order: dict[str, None] = {}

        def add(name: str) -> None:
            if name not in order:
                for needed in self[name].depends:
                    add(needed)
                order[name] = None

        for name in names:
            add(name)
        return list(order)


def read_module(name: str, packed: bytes) -> Module:
    """Return the module in an xz-compressed file."""
    content = lzma.decompress(packed)
    facts = [entry.partition("=") for entry in _modinfo(content)]
    depends = [word for key, _, value in facts if key == "depends" for word in value.split(",") if word]
    aliases = [value for key, _, value in facts if key == "alias"]
    return Module(name, packed, content, tuple(map(underscored, depends)), tuple(aliases))


def aliases(module: Module) -> list[str]:
    """Return the names by which the kernel itself asks for the module, as patterns of the shell.

    Aliases of devices have a colon. A manager of devices asks for these, and there is none.
    """
    return [module.name, *(underscored(alias) for alias in module.aliases if ":" not in alias)]


def underscored(name: str) -> str:
    """Return the name of a module with underscores: a dash means the same."""
    return name.replace("-", "_")


def _modinfo(elf: bytes) -> Iterator[str]:
    """Yield the strings of the section `.modinfo` of a 64-bit little-endian ELF file."""
    start, size, count, names = struct.unpack_from("<40xQ10xHHH", elf)
    sections = [struct.unpack_from("<IIQQQQ", elf, start + index * size) for index in range(count)]
    strings = sections[names][4]
    for name, _, _, _, offset, length in sections:
        if elf.startswith(b".modinfo\0", strings + name):
            yield from (entry.decode(errors="replace") for entry in elf[offset : offset + length].split(b"\0") if entry)
