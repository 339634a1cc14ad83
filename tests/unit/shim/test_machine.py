"""The watch on a VM's processes."""

import os
import subprocess
import threading
from pathlib import Path
from typing import cast

import pytest

from innkeeper.shim.cgroups import Cgroup
from innkeeper.shim.machine import Machine
from innkeeper.shim.settings import Settings


def test_a_vm_whose_helper_cannot_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU's descriptor is closed, and no thread watches."""
    machine = Machine(cast(Settings, None), tmp_path, cast(Cgroup, None))
    processes = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    pidfd_open = os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", lambda pid: pidfd_open(pid if pid == processes[0].pid else 1 << 30))
    before = os.listdir("/proc/self/fd"), threading.active_count()
    try:
        with pytest.raises(OSError):
            machine._watch(processes)
        assert (os.listdir("/proc/self/fd"), threading.active_count()) == before
    finally:
        for process in processes:
            process.kill()
            process.wait()
