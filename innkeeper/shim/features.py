"""What the runtime can do, as containerd 2 asks for it.

Of the features (OCI runtime specification, features.md) only what the shim does by itself is
listed. containerd offers a pod recursive read-only mounts if `rro` is there, and user namespaces if
`linux.mountExtensions.idmap` is.

The mounts of a root that containerd is to leave to this shim, which makes disks of them (see
`roots`), are claimed in two ways: containerd 2.4 takes the claim with the answer to `start`, 2.2
and 2.3 with that to `-info`.
"""

import json

from innkeeper.shim.pb import containerd_pb2 as pb

TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
MOUNT_OPTIONS = ("bind", "private", "rbind", "ro", "rprivate", "rro", "rslave", "rw", "slave")
TYPES, TRANSFORMS = ("erofs",), ("format", "mkdir")
"""The claimed mounts, and changes of mounts before they are made."""
ANNOTATIONS = {"containerd.io/runtime-allow-mounts": ",".join((*(f"{name}/*" for name in TRANSFORMS), *TYPES))}
"""The claim as annotations of the answer to `-info`."""


def packed() -> pb.Any:
    """Return the features as they are sent to containerd."""
    document = {"ociVersionMin": "1.0.0", "ociVersionMax": "1.2.0", "mountOptions": MOUNT_OPTIONS}
    return pb.Any(type_url=TYPE_URL, value=json.dumps(document).encode())


def mount_claim() -> pb.Extension:
    """Return the claim as an extension of the answer to `start`."""
    claim = pb.MountCapabilities(types=TYPES, transforms=TRANSFORMS)
    return pb.Extension(value=pb.Any(type_url="containerd.types.MountCapabilities", value=claim.SerializeToString()))
