"""OCI images: find one by a containers-image reference, make a block device, run it as docker does.

    image = resolve("oci-archive:image.tar")
    document = build_spec(image, RunOptions(args=["sh"]), container_id=..., root_path=...)
    message = to_proto(document)

`image` is the image's config and its block device, cached by the image's digest. `message` is the
argument of CreateContainer.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innkeeper.image.block_device import Image, resolve
    from innkeeper.image.config import ImageConfig
    from innkeeper.image.proto import process_to_proto, to_proto
    from innkeeper.image.run_options import Port, RunOptions, Tmpfs, Ulimit, Volume
    from innkeeper.image.spec import build_spec

_MODULES = {
    "ImageConfig": "config",
    "Image": "block_device",
    "resolve": "block_device",
    "process_to_proto": "proto",
    "to_proto": "proto",
    "Port": "run_options",
    "RunOptions": "run_options",
    "Tmpfs": "run_options",
    "Ulimit": "run_options",
    "Volume": "run_options",
    "build_spec": "spec",
}
__all__ = [
    "Image",
    "ImageConfig",
    "Port",
    "RunOptions",
    "Tmpfs",
    "Ulimit",
    "Volume",
    "build_spec",
    "process_to_proto",
    "resolve",
    "to_proto",
]


def __getattr__(name: str) -> Any:
    """Import the module of a name when it is asked for: `exec` converts a process and no more."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
