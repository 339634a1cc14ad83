"""The mounts of a root that containerd is to leave to this shim, which makes disks of them (see `roots`).

containerd 2.4 takes the claim with the answer to `start`, 2.2 and 2.3 with that to `-info`.
"""

from innkeeper.shim.pb import containerd_pb2 as pb

TYPES, TRANSFORMS = ("erofs",), ("format", "mkdir")
"""Mounts, and changes of mounts before they are made."""
ANNOTATION = "containerd.io/runtime-allow-mounts"


def annotation() -> str:
    """Return the claim as a value of ANNOTATION."""
    return ",".join((*(f"{name}/*" for name in TRANSFORMS), *TYPES))


def extension() -> pb.Extension:
    """Return the claim as an extension of the answer to `start`."""
    claim = pb.MountCapabilities(types=TYPES, transforms=TRANSFORMS)
    return pb.Extension(value=pb.Any(type_url="containerd.types.MountCapabilities", value=claim.SerializeToString()))
