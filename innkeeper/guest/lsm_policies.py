"""Mandatory access control: compile `rootfs/apparmor` and `rootfs/selinux` to what a kernel loads.

The compilers are those of the Debian release that the kernel comes from. Debian ships its list of
that kernel's AppArmor features with the parser, so the host's kernel has no influence.
"""

from pathlib import Path

from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON, hash_tree

PACKAGES = ["apparmor", "secilc"]

POLICY_VERSION = 33
"""Version of SELinux's binary policy: the newest that our kernel reads (POLICYDB_VERSION_MAX)."""

_COMPILE = f"""
set -eu
apparmor_parser --config-file /dev/null --features-file /usr/share/apparmor-features/features --Werror \\
    --skip-kernel-load --skip-cache --ofile /out/apparmor /source/apparmor/innkeeper-default
categories=/tmp/categories.cil
seq -f '(category c%g)' 0 1023 >$categories
echo "(categoryorder ($(seq -f c%g -s ' ' 0 1023)))" >>$categories
echo '(sensitivitycategory s0 (range c0 c1023))' >>$categories
secilc --mls true --policyvers {POLICY_VERSION} --output /out/selinux --filecontext /dev/null /source/selinux/*.cil $categories
"""


def compile_policies(builder: Builder, project: Path) -> Path:
    """Compile the policies and return the step's folder with files `apparmor` and `selinux`."""
    source = project / "rootfs"
    inputs: dict[str, JSON] = {"source": hash_tree(source, ["apparmor/*", "selinux/*"])}
    return builder.step("policy", "compiling the policies of mandatory access control", _COMPILE, inputs, {source: "/source:ro"})
