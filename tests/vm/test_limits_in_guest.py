"""Limits of cgroup v2 by the guest's kernel, which has every controller.

The core runs there from the source tree, in a container with all rights.
"""

import re

import pytest

from tests.images import python_image
from tests.paths import ROOT
from tests.vm.command import innkeeper

pytestmark = pytest.mark.vm
RIGHTS = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined")
PROGRAM = "tests/vm/limits_in_guest.py"
# The hierarchy as the guest has it, writable: processes first leave the group that is to have groups below.
SCRIPT = f"""
set -e
alias mount='busybox mount' umount='busybox umount'
umount /proc/sys
umount /sys/fs/cgroup
mount -o remount,rw /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/tests
echo $$ > /sys/fs/cgroup/tests/cgroup.procs
for name in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$name > /sys/fs/cgroup/cgroup.subtree_control; done
cd /src
exec python3 -B -m pytest -q -o addopts= -p no:cacheprovider --noconftest -p tests.root.conftest {PROGRAM}
"""


def test_limits_in_the_guest() -> None:
    done = innkeeper("run", "--rm", *RIGHTS, "-v", f"{ROOT}:/src:ro", python_image(), "sh", "-c", SCRIPT)
    told = done.stdout.decode(errors="replace")
    assert done.returncode == 0, told + done.stderr.decode(errors="replace")
    passed = re.search(r"(\d+) passed", told)
    assert passed is not None and "skipped" not in told
    assert int(passed.group(1)) >= 36
