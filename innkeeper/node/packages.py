"""The Python packages that the shim needs, which are copied.

An upgrade of the host's must not change those of a node.
"""

import importlib.metadata
from pathlib import Path

from innkeeper.errors import InnkeeperError

NEEDED = {"protobuf": "google", "pyroute2": "pyroute2"}
"""Distribution -> the folder that is taken of it.

Both are pure Python, or of Python's stable ABI.
"""


def sources() -> dict[Path, Path]:
    """Return the path in a folder of packages -> the file to copy there. Raises InnkeeperError."""
    own = Path(__file__).parents[1]
    found = {Path("innkeeper") / path.relative_to(own): path for path in own.rglob("*") if _is_wanted(path, own)}
    for name, top in NEEDED.items():
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise InnkeeperError(
                f"the Python package {name} is not installed", hint="pip install '.[shim]', or use ./build.py of a clone"
            ) from None
        for file in distribution.files or ():
            if file.parts[0] == top and "__pycache__" not in file.parts and "tests" not in file.parts:
                found[Path(*file.parts)] = Path(str(distribution.locate_file(file)))
    return found


def _is_wanted(path: Path, own: Path) -> bool:
    """Return whether a file of our package is needed to run it. What builds a guest is not."""
    parts = path.relative_to(own).parts
    return path.is_file() and "__pycache__" not in parts and parts[0] != "source"
