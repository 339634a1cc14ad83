"""What the core enforces on this kernel, in the format of the runtime specification's features.md.

The words come from the parser's tables. Each one that depends on the kernel is probed, so that the
document does not promise what a container would be refused. A probe passes one argument that is
wrong on purpose: the call fails there and changes nothing.
"""

import os
from pathlib import Path
from typing import Any

from agent.container import seccomp
from agent.container.spec import memory_policy, mounts
from agent.container.spec import seccomp as spec_seccomp
from agent.container.spec.hooks import KINDS
from agent.container.spec.linux import NAMESPACES
from agent.container.state import OCI_VERSION
from agent.linux import landlock, lsm, mount_options, numa
from agent.linux import mount as m
from agent.linux import seccomp as floor
from agent.linux.capability import NAMES, last_capability

OCI_VERSION_MIN = "1.0.0"
OWN_NAMESPACES = "/proc/self/ns"
FILESYSTEMS = "/proc/filesystems"
CONTROLLERS, LANDLOCK = "innkeeper.cgroup.controllers", "innkeeper.landlock.abi"
"""Annotations for what the document has no field for.

The available controllers, and the version of Landlock that programs find (0 for none).
"""
OTHER_OPTIONS = ("bind", "rbind", "remount", "defaults", "tmpcopyup")
MAPPING_OPTIONS = ("idmap", "ridmap")


def features(cgroup_root: Path | None = None) -> dict[str, Any]:
    """Return the document. `cgroup_root` is the parent of containers' cgroups.

    The document lists its controllers, or none without `cgroup_root`.
    """
    filesystems = _words(FILESYSTEMS)
    controllers = _words(cgroup_root / "cgroup.controllers") if cgroup_root else []
    idmap = m.knows_attribute(m.MOUNT_ATTR_IDMAP)
    return {
        "ociVersionMin": OCI_VERSION_MIN,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(KINDS),
        "mountOptions": _mount_options(idmap),
        "linux": {
            "namespaces": _namespaces(),
            "capabilities": list(NAMES[: last_capability() + 1]),
            "cgroup": {"v1": False, "v2": "cgroup2" in filesystems, "systemd": False, "systemdUser": False, "rdma": "rdma" in controllers},
            "seccomp": _seccomp(),
            "apparmor": {"enabled": lsm.apparmor_active()},
            "selinux": {"enabled": lsm.selinux_active()},
            "intelRdt": {"enabled": False},
            "memoryPolicy": _memory_policy(),
            "mountExtensions": {"idmap": {"enabled": idmap}},
            "netDevices": {"enabled": os.path.exists(f"{OWN_NAMESPACES}/net")},
        },
        "annotations": {CONTROLLERS: " ".join(controllers), LANDLOCK: str(landlock.abi())},
    }


def _words(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").split()
    except OSError:
        return []


def _namespaces() -> list[str]:
    present = set(os.listdir(OWN_NAMESPACES))
    return sorted([name for name, kernels in NAMESPACES.items() if kernels in present])


def _mount_options(idmap: bool) -> list[str]:
    words = {*mount_options.PROPAGATION, *mount_options.RECURSIVE_PROPAGATION, *mounts.SUPERBLOCK, *mounts.SUPERBLOCK_OFF}
    for table in (mount_options.ATTRIBUTES, mount_options.RECURSIVE_ATTRIBUTES):
        words.update([word for word, change in table.items() if m.knows_attribute(*change)])
    return sorted({*words, *OTHER_OPTIONS, *(MAPPING_OPTIONS if idmap else ())})


def _seccomp() -> dict[str, Any]:
    actions = sorted([name for name, action in spec_seccomp.ACTIONS.items() if floor.knows_action(action)])
    if not actions:
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": actions,
        "operators": sorted(spec_seccomp.OPERATORS),
        "archs": sorted([name for name in spec_seccomp.ARCHITECTURES if seccomp.knows_architecture(name)]),
        "knownFlags": sorted(spec_seccomp.FLAGS),
        "supportedFlags": sorted([name for name, flag in spec_seccomp.FLAGS.items() if floor.knows_flag(flag)]),
    }


def _memory_policy() -> dict[str, list[str]]:
    modes = [name for name, mode in memory_policy.MODES.items() if numa.knows_mode(mode)]
    flags = [name for name, flag in memory_policy.FLAGS.items() if numa.knows_mode(memory_policy.MODES["MPOL_BIND"] | flag)]
    return {"modes": modes, "flags": flags}
