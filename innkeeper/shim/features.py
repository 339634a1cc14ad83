"""What the runtime can do, as containerd 2 asks for it (OCI runtime specification, features.md).

Only what the shim does by itself is listed. containerd offers a pod recursive read-only mounts if `rro` is
there, and user namespaces if `linux.mountExtensions.idmap` is.
"""

import json

from innkeeper.shim.pb import containerd_pb2 as pb

TYPE_URL = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
MOUNT_OPTIONS = ("bind", "private", "rbind", "ro", "rprivate", "rro", "rslave", "rw", "slave")


def packed() -> pb.Any:
    """Return the features as they are sent to containerd."""
    document = {"ociVersionMin": "1.0.0", "ociVersionMax": "1.2.0", "mountOptions": MOUNT_OPTIONS}
    return pb.Any(type_url=TYPE_URL, value=json.dumps(document).encode())
