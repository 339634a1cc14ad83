"""Packaging only.

An installed innkeeper carries the parts of the source tree that building the guest needs, under `innkeeper/source`, and man pages.
"""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PARTS = ("agent", "innkeeper/wire", "innkeeper/__init__.py", "innkeeper/errors.py", "kernel-config", "rootfs")


class BuildWithSource(build_py):
    """Copies what `innkeeper.paths.project_root` promises."""

    def run(self) -> None:
        super().run()
        self._write_man_pages()
        source = Path(self.build_lib, "innkeeper", "source")
        shutil.rmtree(source, ignore_errors=True)
        for part in PARTS:
            target = source / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / part, target)

    def _write_man_pages(self) -> None:
        """Make a man page of each command's part of the reference pages; they are installed as data, below share/man."""
        sys.path.insert(0, str(ROOT))  # a build front end does not put the source tree there
        from manual import man

        pages = man.write(ROOT / "docs/reference", Path(self.build_lib).parent / "man")
        self.distribution.data_files = [("share/man/man1", [str(path) for path in pages])]


setup(cmdclass={"build_py": BuildWithSource})
