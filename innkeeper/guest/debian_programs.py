"""Programs of Debian 13 for an older host, each copied once with its own loader and libraries."""

from pathlib import Path

from innkeeper import paths
from innkeeper.guest.builder import Builder
from innkeeper.guest.store import JSON, Store

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


def program(package: str, path: str) -> Path:
    """Return the path of the program that `package` ships at `path`.

    Raises InnkeeperError, which names the builder's log.
    """
    store = Store(paths.store_root())
    inputs: dict[str, JSON] = {"script": _TAKE, "package": package, "path": path}

    def make(out: Path) -> None:
        with Builder([package], store) as builder:
            builder.run(["sh", "-c", _TAKE, "take", path], mounts={out: "/out"}, log=store.log_of(out))

    return store.step("debian13", inputs, make) / Path(path).name
