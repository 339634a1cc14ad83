"""Programs for the host, made in the builder.

vhost-device-vsock is the vsock back end for hosts whose kernel has no vhost-vsock. No Debian
release ships it, so it is built once from its crate and our patch. It is linked statically, so that
the program of the trixie builder also runs on an older host.

Programs of Debian 13 are copied for an older host, each with its own loader and libraries.
"""

from pathlib import Path

from innkeeper import paths, progress
from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON, Store

VERSION = "0.3.0"
PACKAGES = ["binutils", "cargo", "gcc", "libc6-dev", "patch", "rustc"]
DEBIAN_PROGRAMS = ("containerd", "erofs-utils", "virtiofsd")
"""The packages of which `debian_program` takes a program.

Each is in the lock file, with what it depends on.
"""
PATCH = Path(__file__).with_name("vhost-device-vsock.patch")
"""Fixes for two cases that end its worker, after which all later connections hang.

These are a connection that is made before the guest's queues are set up, and a host that has
disconnected when the guest accepts.
"""

# An empty package makes cargo fetch the crate and check it against the index's checksum. `--locked`
# then uses the versions and checksums of all dependencies from the lock file inside the crate.
_BUILD = """
set -eu
export CARGO_HOME=/tmp/cargo CARGO_TARGET_DIR=/tmp/target CARGO_PROFILE_RELEASE_STRIP=symbols
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix /tmp/cargo=/cargo --remap-path-prefix /tmp/crate=/crate"
target="$(rustc -vV | sed -n 's/^host: //p')"
mkdir -p /tmp/fetch/src
touch /tmp/fetch/src/lib.rs
printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nvhost-device-vsock = "=%s"\n' "$VERSION" \
    > /tmp/fetch/Cargo.toml
cargo fetch --quiet --manifest-path /tmp/fetch/Cargo.toml
cp -r /tmp/cargo/registry/src/*/vhost-device-vsock-"$VERSION" /tmp/crate
patch --directory /tmp/crate --strip 1 --fuzz 0 < /patch
cargo install --quiet --locked --path /tmp/crate --target "$target" --root /tmp/installed
cp /tmp/installed/bin/vhost-device-vsock /out/
"""


_TAKE = """
set -eu
cp "$1" /out/program
for file in $(ldd /out/program | grep -o '/[^ ]*'); do cp -L "$file" /out/; done
cp -L "$(ldd /out/program | sed -n 's/^[[:space:]]*\\(\\/[^ ]*ld-linux[^ ]*\\).*/\\1/p')" /out/loader
cat > "/out/$(basename "$1")" <<'EOF'
#!/bin/sh
folder=$(dirname "$(readlink -f "$0")")
exec "$folder/loader" --library-path "$folder" "$folder/program" "$@"
EOF
chmod 755 "/out/$(basename "$1")"
"""


def vhost_device_vsock(store: Store | None = None) -> Path:
    """Return the path of the program. It is built on first use (two minutes on 2 cores).

    Raises InnkeeperError, which names the builder's log.
    """
    store = store or Store(paths.store_root())
    inputs: dict[str, JSON] = {"version": VERSION, "packages": list(PACKAGES), "script": _BUILD, "patch": PATCH.read_text()}

    def make(out: Path) -> None:
        what = f"building vhost-device-vsock {VERSION} (once; this host's kernel has no vhost-vsock)"
        with progress.step(what), Builder(PACKAGES, store) as builder:
            mounts = {out: "/out", PATCH: "/patch"}
            builder.run(["sh", "-c", _BUILD], mounts=mounts, env={"VERSION": VERSION}, log=store.log_of(out), network=True)

    return store.step("vhost-device-vsock", inputs, make) / "vhost-device-vsock"


def debian_program(package: str, path: str) -> Path:
    """Return the path of the program that `package`, one of DEBIAN_PROGRAMS, ships at `path`.

    Raises InnkeeperError, which names the builder's log.
    """
    store = Store(paths.store_root())
    builder = Builder([package], store)
    inputs: dict[str, JSON] = {"script": _TAKE, "package": package, "path": path, "builder": builder.id}

    def make(out: Path) -> None:
        with builder:
            builder.run(["sh", "-c", _TAKE, "take", path], mounts={out: "/out"}, log=store.log_of(out))

    return store.step("debian13", inputs, make) / Path(path).name
