"""Run skopeo, and buildah for an image's id, and shorten their errors to one line."""

import ipaddress
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from innkeeper import programs
from innkeeper.errors import InnkeeperError


def inspect_config(source: str, scratch: Path, platform: str = "") -> bytes:
    """Return the raw bytes of the config of image `source`. Their sha256 is the image's id.

    Of a manifest list, the entry for `platform` (`arm64`) is used, or for this host's if it is
    empty.
    """
    return _run(
        [*_platform(platform), "inspect", "--config", "--raw", *tls_options(source, "--tls-verify"), source],
        scratch,
        f"image {source} not found",
    )


def copy_to_dir(source: str, destination: Path, scratch: Path, platform: str = "") -> None:
    """Copy image `source` into the folder `destination`, with uncompressed layers.

    Without `platform` it is the one for this host. The transport is `dir:`. skopeo checks the
    digest of each blob.
    """
    options = ["--quiet", "--remove-signatures", "--dest-decompress", *tls_options(source, "--src-tls-verify")]
    _run([*_platform(platform), "copy", *options, source, f"dir:{destination}"], scratch, f"cannot copy image {source}")


def _platform(name: str) -> list[str]:
    """Return the options that choose the entry of a manifest list."""
    return ["--override-arch", name] if name else []


def copy_artefact(source: str, destination: str, scratch: Path, failure: str, options: Sequence[str] = ()) -> None:
    """Copy an OCI artefact between a registry and an OCI layout, byte for byte.

    `failure` begins the error's message.
    """
    tls = [*tls_options(source, "--src-tls-verify"), *tls_options(destination, "--dest-tls-verify")]
    _run(["--insecure-policy", "copy", "--quiet", "--preserve-digests", *tls, *options, source, destination], scratch, failure)


def local_image_id(name: str) -> str | None:
    """Return the id (hex) of an image in local containers-storage, or None.

    `name` may be short or full.
    """
    buildah = programs.find("buildah")
    if buildah is None:
        return None
    command = [str(buildah), "inspect", "--type", "image", "--format", "{{.FromImageID}}", name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = done.stdout.strip().removeprefix("sha256:")
    return found if done.returncode == 0 and re.fullmatch("[0-9a-f]{64}", found) else None


def tls_options(source: str, option: str) -> list[str]:
    """Return options that disable certificate checks for a registry on this host only.

    As docker does for 127.0.0.0/8, ::1 and localhost.
    """
    if not source.startswith("docker://"):
        return []
    host = source.removeprefix("docker://").split("/")[0]
    host = host[1:].split("]")[0] if host.startswith("[") else host.rsplit(":", 1)[0]
    return [f"{option}=false"] if _is_local(host) else []


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _run(arguments: Sequence[str], scratch: Path, failure: str) -> bytes:
    # skopeo must not continue to write into the cache after this process is killed.
    command = [str(programs.require("setpriv")), "--pdeathsig", "KILL", str(programs.require("skopeo")), *arguments]
    environment = {**os.environ, "TMPDIR": str(scratch)}  # archives are unpacked there, not into /var/tmp
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment)
    if done.returncode != 0:
        raise InnkeeperError(f"{failure}: {_reason(done.stderr.decode(errors='replace'))}", hint=_hint(done.stderr))
    return done.stdout


def _reason(stderr: str) -> str:
    """Return skopeo's last message, without its log format."""
    messages = re.findall(r'level=fatal msg="((?:[^"\\]|\\.)*)"', stderr)
    if messages:
        return str(messages[-1]).replace('\\"', '"')
    lines = stderr.strip().splitlines()
    return lines[-1] if lines else "no message"


def _hint(stderr: bytes) -> str | None:
    """Return the next step for an error of skopeo, or None."""
    if b"more than one image in oci" in stderr:
        return "the layout holds several images: put the name of one behind a colon, as in oci:FOLDER:NAME"
    if b"received a manifest list instead of a manifest" in stderr:
        return "an index within an index is not read: copy the image of one platform out of it first"
    if b"no image found in" in stderr:
        return "the image is not built for this machine's platform"
    if b"unauthorized" in stderr or b"authentication required" in stderr:
        return "log in with: skopeo login REGISTRY"
    return None
