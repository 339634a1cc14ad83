"""The document and the device, judged by another runtime: runc runs what `run` would send to the guest."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from innkeeper.image import Image, RunOptions, Volume, build_spec, option_values, resolve
from tests import images
from tests.needs import needs

pytestmark = [pytest.mark.root, needs("buildah", "skopeo", "busybox", "loop", "runc")]

SCRIPT = """
set -e
mount -t erofs -o loop,ro "$1" "$2/lower"
mount -t tmpfs none "$2/scratch"
mkdir "$2/scratch/upper" "$2/scratch/work"
mount -t overlay -o "lowerdir=$2/lower,upperdir=$2/scratch/upper,workdir=$2/scratch/work" none "$2/rootfs"
exec runc --root "$2/scratch/state" run --bundle "$2" innkeeper-oracle
"""


@pytest.fixture(scope="module")
def image() -> Image:
    return resolve(images.busybox_image())


def run(image: Image, folder: Path, shell: str, **options: Any) -> str:
    """Run a shell line in a container that runc makes of our document; its output."""
    for name in ("lower", "scratch", "rootfs"):
        (folder / name).mkdir()
    sources = [str(volume.host) for volume in options.get("volumes", ())]
    asked = RunOptions(args=["/bin/sh", "-c", shell], **options)
    document = build_spec(image, asked, container_id="oracle", root_path=f"{folder}/rootfs", volume_sources=sources, environ={})
    linux: Any = document["linux"]
    linux["namespaces"].append({"type": "network"})  # in the guest the machine is the network's boundary
    mounts: Any = document["mounts"]
    # The host may lack cgroup v2; the agent's own tests cover that mount.
    document["mounts"] = [entry for entry in mounts if entry["destination"] != "/sys/fs/cgroup"]
    # The guest's hard limit is above the default one; this host's may be below, and runc may not raise it.
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    process: Any = document["process"]
    process["rlimits"] = [limit for limit in process["rlimits"] if limit["type"] != "RLIMIT_NOFILE" or limit["hard"] <= highest]
    (folder / "config.json").write_text(json.dumps(document))
    done = subprocess.run(["unshare", "--mount", "sh", "-c", SCRIPT, "sh", image.erofs, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stderr, file=sys.stderr)
    return done.stdout


def test_default_container(image: Image, tmp_path: Path) -> None:
    output = run(
        image,
        tmp_path,
        "cat /proc/self/status; id; hostname; env; cat /proc/kcore | wc -c; mount -t tmpfs x /tmp || echo no mount; touch /new; ls -d /new",
    )
    status = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    assert status["CapBnd"] == status["CapEff"] == status["CapPrm"] == "00000000a80425fb"
    assert status["CapInh"] == status["CapAmb"] == "0000000000000000"
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert "uid=0(root) gid=0(root)" in output
    assert "\noracle\n" in output
    assert "HOSTNAME=oracle" in output
    assert "\n0\nno mount\n/new\n" in output


def test_user_and_flags(image: Image, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/file").write_text("from the host")
    shell = (
        "grep -E 'Cap(Bnd|Eff)|Groups' /proc/self/status; id; pwd; ulimit -n; cat /v/file; touch /v/x || echo read-only; "
        "touch /x || echo root read-only; touch /t/y && echo tmpfs; stat -c %a /t; echo $A$HOME"
    )
    output = run(
        image,
        tmp_path,
        shell,
        user="guest",
        workdir="/tmp",
        read_only=True,
        env=["A=b"],
        ulimits=[option_values.parse_ulimit("nofile=99")],
        volumes=[Volume(tmp_path / "shared", "/v", True)],
        tmpfs=[option_values.parse_tmpfs("/t:mode=1777")],
        cap_drop=["ALL"],
    )
    assert "CapBnd:\t0000000000000000" in output
    assert "uid=1000(guest) gid=1000(guest) groups=29(audio),1000(guest)" in output
    assert "\n/tmp\n99\nfrom the hostread-only\nroot read-only\ntmpfs\n1777\nb/home/guest\n" in output
