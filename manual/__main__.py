"""Write the generated pages of docs/reference (`python -m manual`).

`python -m manual man DIR` writes man pages instead.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from manual import commands, guest_toml, man, pages, parameters, rpcs, shim_toml

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs/reference"
INNKEEPER = "Every command of `innkeeper` (`./build.py` in a clone takes the same ones) with all options, read from its parser."
OCI = "Every command of the OCI runtime, read from its tables. [The runtime command](../oci.md) says how to use it with engines."

GENERATED: Mapping[str, Callable[[], str]] = {
    "innkeeper.md": lambda: pages.commands_page("innkeeper", INNKEEPER, commands.innkeeper()),
    "innkeeper-oci.md": lambda: pages.commands_page("innkeeper-oci", OCI, commands.innkeeper_oci()),
    "rpcs.md": lambda: rpcs.page(ROOT / "innkeeper/wire/proto"),
    "boot-parameters.md": parameters.page,
    "guest-toml.md": guest_toml.page,
    "guest.schema.json": guest_toml.schema_text,
    "shim-toml.md": shim_toml.page,
}
"""Maps each page below docs/reference to the function that returns its text."""


def main() -> None:
    """Write the pages that the arguments ask for."""
    if sys.argv[1:2] == ["man"]:
        for path in man.write(REFERENCE, Path(sys.argv[2])):
            print(path)
        return
    for name, text in GENERATED.items():
        (REFERENCE / name).write_text(text())


if __name__ == "__main__":
    main()
