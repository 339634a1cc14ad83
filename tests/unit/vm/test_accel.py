"""The proof of KVM: CPU models are tried in turn, and the verdict says what the guest did under each.

QEMU is a script here, which does under each model what a host with broken KVM was seen to do.
"""

from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.vm import HostPrograms, accel, bootfacts

QEMU = """#!/bin/sh
cpu=
while [ $# -gt 0 ]; do [ "$1" = -cpu ] && cpu=$2; shift; done
works() {{ printf '\\033[0m[ 0.1] Kernel panic - not syncing: VFS: no root\\r\\n'; exit 0; }}
hangs() {{ printf '[ 0.1] first\\r\\n[ 0.2] calibrating\\r\\n'; exec sleep 60; }}
silent() {{ exec sleep 60; }}
aborts() {{ echo 'error: failed to set MSR 0x10a' >&2; kill -ABRT $$; }}
refuses() {{ echo 'unsupported model' >&2; exit 1; }}
case $cpu in {host_model}) {host};; {fewer_model}) {fewer};; {baseline_model}) {baseline};; esac
"""


@pytest.fixture
def prove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Prove":
    monkeypatch.setattr(accel, "SECONDS", 1.0)
    return Prove(tmp_path / "qemu")


class Prove:
    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, host: str, fewer: str, baseline: str) -> accel.Verdict:
        models = {"host_model": accel.HOST, "fewer_model": accel.FEWER, "baseline_model": accel.BASELINE}
        self.program.write_text(QEMU.format(host=host, fewer=fewer, baseline=baseline, **models))
        self.program.chmod(0o755)
        return accel.prove(Path("/kernel"), HostPrograms(qemu=self.program, setpriv=programs.require("setpriv")))


def test_the_host_model_is_the_first_choice(prove: Prove) -> None:
    assert prove("works", "silent", "silent") == accel.Verdict(True, "a guest kernel ran", "host")


def test_a_model_with_fewer_features_stands_in(prove: Prove) -> None:
    verdict = prove("aborts", "works", "works")
    assert (verdict.works, verdict.cpu) == (True, accel.FEWER)
    assert verdict.why.startswith(f"a guest kernel ran with -cpu {accel.FEWER} (-cpu host: QEMU ended with signal 6")
    assert "(error: failed to set MSR 0x10a), its console stayed empty" in verdict.why
    assert prove("hangs", "refuses", "works").cpu == accel.BASELINE


def test_a_failure_says_what_the_guest_did_under_each_model(prove: Prove) -> None:
    verdict = prove("hangs", "silent", "refuses")
    assert not verdict.works
    assert verdict.why.split("; ") == [
        "-cpu host: a guest hung for 1 s, its console ends with '[ 0.2] calibrating'",
        f"-cpu {accel.FEWER}: a guest hung for 1 s, its console stayed empty",
        f"-cpu {accel.BASELINE}: QEMU ended with status 1 (unsupported model), its console stayed empty",
    ]


def test_the_model_is_remembered_with_the_verdict(prove: Prove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accel, "DEVICE", tmp_path)
    assert accel.cpu_model() == "host"
    known = prove("refuses", "works", "works")
    monkeypatch.setattr(accel, "prove", lambda kernel, host: known)
    assert accel.choose(None, Path("/kernel"), HostPrograms(Path("/qemu"), Path("/setpriv"))) == "kvm"
    assert (accel.kvm(None), accel.cpu_model()) == (known, accel.FEWER)
    # A verdict of a version that tried only one model does not count.
    bootfacts.remember("kvm", {"works": False, "why": "a guest hung under it"})
    assert accel.kvm(None).why.startswith("not proven yet")
    assert accel.cpu_model() == "host"
