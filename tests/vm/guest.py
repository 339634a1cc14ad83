"""The guest that these tests boot: built once for all of them."""

from functools import cache
from typing import Any

from innkeeper.guest import Artifacts, build
from innkeeper.vm import VmConfig


@cache
def artifacts() -> Artifacts:
    """Kernel and root as `./build.py build` makes them, out of the store if they are there."""
    return build(None)


def vm_config(**fields: Any) -> VmConfig:
    """A small machine with our guest."""
    built = artifacts()
    return VmConfig(**{"kernel": built.vmlinux, "root": built.rootfs, "memory_mib": 256, **fields})
