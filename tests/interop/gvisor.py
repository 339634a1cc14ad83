"""gVisor for a node: its runsc and its shim, unmodified, as one more runtime handler, `runsc`."""

from pathlib import Path

from innkeeper import paths
from innkeeper.guest.store import JSON, Store
from tests import go_helpers

SOURCE = Path(__file__).resolve().parents[1] / "gvisor"
PACKAGES = ("gvisor.dev/gvisor/runsc", "gvisor.dev/gvisor/shim")
PROGRAM = "containerd-shim-runsc-v1"

HANDLER = """
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
      runtime_type = "io.containerd.runsc.v1"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
        TypeUrl = "io.containerd.runsc.v1.options"
        ConfigPath = "@DIR@/runsc.toml"
"""

# Without cgroups: the host's may be of either version, or both.
_CONFIGURATION = """
binary_name = "{programs}/runsc"
root = "{folder}/runsc"
[runsc_config]
platform = "{platform}"
ignore-cgroups = "true"
"""

# `start` differs in two ways from what this shim expects of a node. It lowers the shim's OOM score and ends where it may not
# (without CAP_SYS_RESOURCE), except in a user namespace: so it sees the id map of one, in a mount namespace of its own.
# And it answers in JSON, as containerd 1.7 and later understand it; 1.6 wants the bare address.
_WRAPPER = r"""#!/bin/sh
folder=$(dirname "$(readlink -f "$0")")
for verb; do :; done
[ "$verb" = start ] || exec "{programs}/shim" "$@"
told=$(unshare --mount --propagation slave sh -c \
    'mount --bind "$0/uid_map" /proc/$$/uid_map && exec "{programs}/shim" "$@"' "$folder" "$@") || exit
echo "$told"{filter}
"""
_BARE_ADDRESS = r""" | sed 's/.*"address":"\([^"]*\)".*/\1/'"""
_UID_MAP = "0 0 65536\n"


def _programs() -> Path:
    """The folder of runsc and the shim. Go 1.21 or later fetches the release that their module asks for."""
    return go_helpers.build("test-gvisor", SOURCE, *PACKAGES, toolchain="auto")


def shim(bare_address: bool = True) -> Path:
    """The program that containerd looks for. With `bare_address` it answers as containerd 1.6 wants."""
    wrapper = _WRAPPER.replace("{programs}", str(_programs())).replace("{filter}", _BARE_ADDRESS if bare_address else "")
    inputs: dict[str, JSON] = {"wrapper": wrapper, "uid_map": _UID_MAP}

    def make(out: Path) -> None:
        (out / PROGRAM).write_text(wrapper)
        (out / PROGRAM).chmod(0o755)
        (out / "uid_map").write_text(_UID_MAP)

    return Store(paths.store_root()).step("test-gvisor-shim", inputs, make) / PROGRAM


def configure(folder: Path, platform: str = "ptrace") -> None:
    """Write the shim's configuration for the node in `folder`.

    gVisor's own platform, systrap, asks the kernel for a seccomp listener. A process has one at most, and what containerd starts on a
    node of Kata's shim has the one by which AF_VSOCK is answered: there it is ptrace.
    """
    (folder / "runsc.toml").write_text(_CONFIGURATION.format(programs=_programs(), folder=folder, platform=platform))
