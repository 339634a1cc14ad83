"""The containerds that the shim is tried with: Debian 12's, Debian 13's, and a release of containerd 2 built from its Go module."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from innkeeper import programs
from innkeeper.guest.host_programs import debian_program
from tests import go_helpers
from tests.paths import ROOT

MODULE = "github.com/containerd/containerd/v2/cmd"
SOURCE = ROOT / "tests" / "containerd"


@dataclass(frozen=True)
class Containerd:
    """A daemon and its client."""

    daemon: Path
    client: Path


def of_debian_12() -> Containerd:
    """Return the host's, which is 1.6 on Debian 12."""
    client = programs.require("ctr")
    return Containerd(client.with_name("containerd"), client)


def of_debian_13() -> Containerd:
    """Return 1.7, with its own loader and libraries. The host's client can talk to it."""
    return Containerd(debian_program("containerd", "/usr/bin/containerd"), programs.require("ctr"))


def of_go_module() -> Containerd:
    """Return containerd 2, built once. Its shim of runc is beside it."""
    names = ("containerd", "ctr", "containerd-shim-runc-v2")
    folder = go_helpers.build("test-containerd", SOURCE, *(f"{MODULE}/{name}" for name in names), tags="no_btrfs no_devmapper")
    return Containerd(folder / "containerd", folder / "ctr")


def runc_shim() -> Path:
    """Return the shim for runc of containerd 2, which understands no older one's."""
    name = "containerd-shim-runc-v2"
    return go_helpers.build("test-runc-shim", SOURCE, f"{MODULE}/{name}", tags="no_btrfs no_devmapper") / name


VERSIONS: dict[str, Callable[[], Containerd]] = {"1.6": of_debian_12, "1.7": of_debian_13, "2.4": of_go_module}
