"""Packaging only: an installed innkeeper carries the parts of the source tree that building the guest needs, under `innkeeper/source`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PARTS = ("agent", "innkeeper/wire", "innkeeper/__init__.py", "innkeeper/errors.py", "kernel-config", "rootfs")


class BuildWithSource(build_py):
    """Copies what `innkeeper.paths.project_root` promises."""

    def run(self) -> None:
        super().run()
        source = Path(self.build_lib, "innkeeper", "source")
        shutil.rmtree(source, ignore_errors=True)
        for part in PARTS:
            target = source / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / part, target)


setup(cmdclass={"build_py": BuildWithSource})
