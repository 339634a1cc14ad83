"""Configurations of the shim, changed line by line."""

import re
from pathlib import Path


def changed(source: Path, target: Path, lines: dict[str, str]) -> Path:
    """`target`, a copy of `source` in which the line of each key has become another text. Each must be there once."""
    text = source.read_text()
    for key, line in lines.items():
        text, count = re.subn(rf"^{key} = .*$", line.replace("\\", r"\\"), text, flags=re.MULTILINE)
        assert count == 1, key
    target.write_text(text)
    return target
