"""Packaging only.

An installed innkeeper contains man pages and, in `innkeeper/source`, the parts of the source tree
that are needed to build the guest.
"""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PARTS = ("agent", "innkeeper/wire", "innkeeper/__init__.py", "innkeeper/errors.py", "kernel-config", "rootfs", "guest.lock")

NOT_INSTALLED = ("innkeeper-test", "innkeeper-bench")
"""Man pages of the commands that only a source tree has."""


class BuildWithSource(build_py):
    """A build command that also copies the source tree for `innkeeper.paths.project_root`."""

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
        """Write a man page for each command from the reference pages.

        They are installed as data files below share/man.
        """
        sys.path.insert(0, str(ROOT))  # a build front end does not do this
        from manual import man

        pages = man.write(ROOT / "docs/reference", Path(self.build_lib).parent / "man")
        installed = [str(path) for path in pages if path.stem not in NOT_INSTALLED]
        self.distribution.data_files = [("share/man/man1", installed)]


setup(cmdclass={"build_py": BuildWithSource})
