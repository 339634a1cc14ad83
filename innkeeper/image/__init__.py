"""OCI images: found by any containers-image reference, turned into a block device, and run as docker would.

image = resolve("oci-archive:image.tar")            the device, cached by the image's digest, and its config
document = build_spec(image, RunOptions(args=["sh"]), container_id=..., root_path=...)
message = to_proto(document)                        what CreateContainer takes
"""

from innkeeper.image.config import ImageConfig
from innkeeper.image.fetch import Image, resolve
from innkeeper.image.options import Port, RunOptions, Tmpfs, Ulimit, Volume
from innkeeper.image.proto import process_to_proto, to_proto
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
