"""How the frozen agent imports: one dictionary of all modules, read from the program once.

PyInstaller's importers stand in for a folder of sys.path and answer whatever a program may ask of
it (resources, source, iteration). The agent asks for none of it, and PID 1 would pay at each boot.
The archive stays open, so that a module can still be imported when the root file system is another
one.

PyInstaller's bootloader runs this before anything else: only built-in modules may be imported.
"""

import _frozen_importlib
import marshal
import posix
import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

# Kinds of entries (PyInstaller.loader.pyimod01_archive); what is neither is a plain module.
_PACKAGE = 1
_NAMESPACE = 3

_TABLE_LIMIT = 1 << 22
_MAGIC: bytes = _frozen_importlib._bootstrap_external.MAGIC_NUMBER  # type: ignore[attr-defined]


class Archive:
    """PyInstaller's PYZ: its magic, the interpreter's magic, the table's offset.

    The table is marshalled (name, (kind, offset, size)).
    """

    def __init__(self, place: str) -> None:
        """Open the archive at `place`, which is PATH?OFFSET."""
        path, _, start = place.rpartition("?")
        self.start = int(start)
        self.descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        head = posix.pread(self.descriptor, 12, self.start)
        if head[:4] != b"PYZ\0" or head[4:8] != _MAGIC:
            raise ImportError(f"{place} is not an archive for this interpreter")
        table = self.start + int.from_bytes(head[8:], "big")
        self.entries: dict[str, tuple[int, int, int]] = dict(marshal.loads(posix.pread(self.descriptor, _TABLE_LIMIT, table)))

    def code(self, name: str) -> "CodeType":
        """Return the code object of a module."""
        _, offset, size = self.entries[name]
        code: CodeType = marshal.loads(zlib.decompress(posix.pread(self.descriptor, size, self.start + offset)))
        return code


class Finder:
    """Finds and loads modules of an archive by their full names.

    It is an importlib.abc.MetaPathFinder and Loader.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.root: str = sys._MEIPASS  # type: ignore[attr-defined]  # the bootloader sets it

    def find_spec(self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None) -> "ModuleSpec | None":
        entry = self.archive.entries.get(name)
        if entry is None:
            return None  # an extension module, or one of the interpreter's own
        folder = f"{self.root}/{name.replace('.', '/')}"
        if entry[0] == _NAMESPACE:
            spec = _frozen_importlib.ModuleSpec(name, None)
            spec.submodule_search_locations = [folder]
        elif entry[0] == _PACKAGE:
            spec = _frozen_importlib.ModuleSpec(name, self, origin=f"{folder}/__init__.pyc", is_package=True)  # type: ignore[arg-type]
            spec.submodule_search_locations = [folder]
        else:
            spec = _frozen_importlib.ModuleSpec(name, self, origin=f"{folder}.pyc")  # type: ignore[arg-type]
        return spec

    def create_module(self, spec: "ModuleSpec") -> None:
        return None

    def exec_module(self, module: "ModuleType") -> None:
        module.__file__ = module.__spec__.origin  # type: ignore[union-attr]
        exec(self.archive.code(module.__spec__.name), module.__dict__)  # type: ignore[union-attr]

    def get_code(self, name: str) -> "CodeType":
        return self.archive.code(name)


def install() -> None:
    """Put the program's archive in front of all other ways to import.

    The bootloader left its place in sys.
    """
    place: str = sys.__dict__.pop("_pyinstaller_pyz")
    sys.meta_path.insert(0, Finder(Archive(place)))
