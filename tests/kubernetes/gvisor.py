"""gVisor beside our shim, for containerd 2: its own platform, and its shim as it is but for the OOM score."""

from pathlib import Path

from tests.interop import gvisor


def gvisor_shim() -> Path:
    """Return the shim that containerd looks for. Its `start` answers in JSON, as containerd 2 understands it."""
    return gvisor.shim(bare_address=False)


def write_configuration(folder: Path) -> None:
    """Write the shim's configuration for the node in `folder`."""
    gvisor.configure(folder, platform="systrap")
