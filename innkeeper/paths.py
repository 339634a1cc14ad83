"""Where the host's side keeps its files. Nothing is ever written outside these folders and what the user names.

<cache>/store/      results of build steps, by id
<cache>/images/     OCI images turned into block devices, by digest
<cache>/machines/   one folder a running machine: state.json, sockets, logs, scratch disk
"""

import os
from pathlib import Path


def cache_root() -> Path:
    """The cache folder: `INNKEEPER_CACHE`, else `$XDG_CACHE_HOME/innkeeper`, else `~/.cache/innkeeper`."""
    if own := os.environ.get("INNKEEPER_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base).absolute() / "innkeeper"


def store_root() -> Path:
    """Results of build steps, named by their id."""
    return cache_root() / "store"


def images_root() -> Path:
    """Block devices made of OCI images, named by the image's digest."""
    return cache_root() / "images"


def machines_root() -> Path:
    """One folder for each running or stopped machine."""
    return cache_root() / "machines"


def project_root() -> Path:
    """The source tree, which holds `kernel-config/`, `rootfs/` and `agent/`; only building needs it. Installed, we carry a copy."""
    package = Path(__file__).resolve().parent
    carried = package / "source"
    return carried if carried.is_dir() else package.parent
