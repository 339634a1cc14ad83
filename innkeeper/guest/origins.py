"""Where each file of a root, and each frozen module, comes from.

    step = find_origins(store, project, guest, root, programs)     # <store>/origins-ID/origins.json

The builder knows: dpkg has the owner of each of Debian's files, the wheels have their records, and
the rest is our source. The result is what the bill of materials (`sbom`) is made of.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from innkeeper import progress
from innkeeper.guest import additions, frozen
from innkeeper.guest.config import Guest
from innkeeper.guest.freeze import BUILDER_SCRIPTS, install_packages
from innkeeper.guest.store import JSON, Store, hash_tree

SCRIPTS = ("origins.py", "debian_files.py")
SOURCES = ("agent/**/*.py", "innkeeper/__init__.py", "innkeeper/errors.py", "innkeeper/wire/**/*.py")
"""The part of the tree in which frozen modules are looked for."""


def find_origins(store: Store, project: Path, guest: Guest, root: Path, programs: Mapping[str, Path]) -> Path:
    """Return the step's folder with `origins.json`, for the root of the step `root`.

    `programs` has the steps of the frozen programs in it.
    """
    builds = additions.builder(store, guest)
    site = install_packages(additions.builder(store, Guest(architecture=guest.architecture)), project)
    inputs: dict[str, JSON] = {
        "builder": builds.id,
        "root": root.name,
        "programs": {name: step.name for name, step in programs.items()},
        "site": site.name,
        "rootfs": hash_tree(project / "rootfs", ["layout", "skeleton/**/*"]),
        "source": hash_tree(project, SOURCES),
        "scripts": hash_tree(BUILDER_SCRIPTS, [*SCRIPTS, "stdlib_shims/*.py"]),
    }

    def make(out: Path) -> None:
        with progress.step("finding the origin of each file"), builds:
            plan = out / "work"
            plan.mkdir()
            (plan / "plan.json").write_text(json.dumps(_plan(project, root, programs)))
            mounts = {
                root / "root.erofs": "/rootfs.erofs:ro",
                project / "rootfs": "/data:ro",
                project: "/source:ro",
                site / "site": "/site:ro",
                BUILDER_SCRIPTS: "/inside:ro",
                plan: "/plan:ro",
                out: "/out",
            }
            builds.run(["python3", "-I", f"/inside/{SCRIPTS[0]}"], mounts=mounts, log=store.log_of(out))
            shutil.rmtree(plan)

    return store.step("origins", inputs, make)


def _plan(project: Path, root: Path, programs: Mapping[str, Path]) -> dict[str, JSON]:
    """Return what the script in the builder cannot find out by itself."""
    added = json.loads((root / "origins.json").read_text()) if (root / "origins.json").exists() else {}
    modules: dict[str, JSON] = {name: [*frozen.modules(step / name / name)] for name, step in programs.items()}
    return {"added": added, "copied": dict(_copied(project / "rootfs" / "layout")), "modules": modules}


def _copied(layout: Path) -> dict[str, str]:
    """Return the layout's lines `copy`: path in the root -> path in the builder."""
    lines = [line.split("#")[0].split() for line in layout.read_text().splitlines()]
    return {words[-1]: words[-2] for words in lines if "copy" in words[:2]}
