"""vhost-device-vsock, the vsock back end for hosts whose kernel has none, built once from its crate.

No Debian release has it. It is linked statically, so that what the trixie builder makes runs on an older host as well.
"""

from pathlib import Path

from innkeeper import paths, progress
from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON, Store

VERSION = "0.3.0"
PACKAGES = ["binutils", "cargo", "gcc", "libc6-dev", "rustc"]

# `--locked` takes the versions and checksums of all dependencies from the lock file inside the crate.
_BUILD = """
set -eu
export CARGO_HOME=/tmp/cargo CARGO_TARGET_DIR=/tmp/target CARGO_PROFILE_RELEASE_STRIP=symbols
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix /tmp/cargo=/cargo"
target="$(rustc -vV | sed -n 's/^host: //p')"
cargo install --quiet --locked --version "$VERSION" --target "$target" --root /tmp/installed vhost-device-vsock
cp /tmp/installed/bin/vhost-device-vsock /out/
"""


def vhost_device_vsock(store: Store | None = None) -> Path:
    """The program, built on first use (two minutes on 2 cores). Raises InnkeeperError; the builder's log is named then."""
    store = store or Store(paths.store_root())
    inputs: dict[str, JSON] = {"version": VERSION, "packages": list(PACKAGES), "script": _BUILD}

    def make(out: Path) -> None:
        what = f"building vhost-device-vsock {VERSION} (once; this host's kernel has no vhost-vsock)"
        with progress.step(what), Builder(PACKAGES, store) as builder:
            builder.run(["sh", "-c", _BUILD], mounts={out: "/out"}, env={"VERSION": VERSION}, log=store.log_of(out), network=True)

    return store.step("vhost-device-vsock", inputs, make) / "vhost-device-vsock"
