"""OCI images: find one by a containers-image reference, make a block device, run it as docker does.

    image = resolve("oci-archive:image.tar")
    document = build_spec(image, RunOptions(args=["sh"]), container_id=..., root_path=...)
    message = to_proto(document)

`image` is the image's config and its block device, cached by the image's digest. `message` is the
argument of CreateContainer.
"""

from innkeeper.image.config import ImageConfig
from innkeeper.image.fetch import Image, resolve
from innkeeper.image.proto import process_to_proto, to_proto
from innkeeper.image.run_options import Port, RunOptions, Tmpfs, Ulimit, Volume
from innkeeper.image.spec import build_spec

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
