"""Real images for engines in tests: made by buildah and mmdebstrap, as archives that podman and containerd load."""

from pathlib import Path

from tests import images


def archive(reference: str) -> Path:
    """The file of an image that `tests.images` has made."""
    return Path(reference.removeprefix("oci-archive:"))


def busybox() -> Path:
    """A few megabytes: busybox with its common applets."""
    return archive(images.busybox_image())


def nginx() -> Path:
    """Debian with nginx, which is told to serve."""
    return archive(images.nginx_image())
