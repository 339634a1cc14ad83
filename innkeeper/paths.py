"""The folders of the host's side, and its name.

Files are written only there and where the user asks for them.

<cache>/store/      results of build steps, by id
<cache>/images/     OCI images converted to block devices, by digest
<cache>/machines/   one folder per running VM: state.json, sockets, logs, scratch disk
<cache>/templates/  saved VMs, by key
<cache>/snapshots/  saved VMs with a container, by tag
<cache>/scratch/    empty file systems, by size, which scratch disks of containers are copied from
<cache>/boot-files-*.json  the guest that the last run found, while no input of its build changes
<cache>/pool.sock   where the process that keeps idle VMs takes claims; pool.lock is held by it
"""

import os
import sys
from pathlib import Path

TEMPLATES_VARIABLE = "INNKEEPER_TEMPLATES"


def cache_root() -> Path:
    """Return the cache folder.

    It is `INNKEEPER_CACHE`, else `$XDG_CACHE_HOME/innkeeper`, else `~/.cache/innkeeper`.
    """
    if own := os.environ.get("INNKEEPER_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base).absolute() / "innkeeper"


def store_root() -> Path:
    """Return the folder of the results of build steps, which are named by their id."""
    return cache_root() / "store"


def images_root() -> Path:
    """Return the folder of block devices made from OCI images, which are named by the digest."""
    return cache_root() / "images"


def vms_root() -> Path:
    """Return the folder that has one folder for each running or stopped VM."""
    return cache_root() / "machines"


def templates_root() -> Path:
    """Return the folder of templates, by key: `INNKEEPER_TEMPLATES`, or one in the cache."""
    own = os.environ.get(TEMPLATES_VARIABLE)
    return Path(own).absolute() if own else cache_root() / "templates"


def pool_socket() -> Path:
    """Return the socket of the process that keeps idle VMs (`innkeeper pool`)."""
    return cache_root() / "pool.sock"


def snapshots_root() -> Path:
    """Return the folder of snapshots, which are named by their tag."""
    return cache_root() / "snapshots"


def project_root() -> Path:
    """Return the source tree, which contains `kernel-config/`, `rootfs/` and `agent/`.

    Only building needs it. An installed innkeeper contains a copy.
    """
    package = Path(__file__).resolve().parent
    carried = package / "source"
    return carried if carried.is_dir() else package.parent


def program_name() -> str:
    """Return the name that the user calls us by, for hints.

    It is `build.py` in a source tree, else `innkeeper`. A process that we start, as a container's
    monitor, has another name, and so has `python -m`.
    """
    name = os.path.basename(sys.argv[0])
    if name in ("innkeeper", "build.py"):
        return name
    return "build.py" if (project_root() / "build.py").exists() else "innkeeper"
