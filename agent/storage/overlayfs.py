"""Storage driver `overlayfs`: a container's root as an overlay of directories."""

import os
from typing import TYPE_CHECKING

from agent import loop
from agent.errors import Refused, StepFailed
from agent.linux.openat2 import open_without_links
from agent.storage.driver import Context, Detach, mount_async, mount_filesystem, options_without, refuse_driver_options
from agent.storage.mounted import Mounted
from agent.storage.mountpoint import check_path, open_directory
from agent.storage.options import OVERLAY_RW, Options
from agent.storage.tree import remove_tree
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

CREATE_DIRECTORY = "io.katacontainers.volume.overlayfs.create_directory"
CONTAINERS = "/run/kata-containers"
LONGEST_VALUE = 255
"""The longest value that fsconfig(2) takes, in bytes."""


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Create the requested directories, then mount the overlay.

    The option overlay-rw adds an upper layer of the container's own, in the guest's memory, which
    the undo function removes.
    """
    made = refuse_driver_options(storage, CREATE_DIRECTORY).get(CREATE_DIRECTORY, [])
    options = options_without(storage, "bind", "remount")
    own: list[str] = []
    if (OVERLAY_RW, None) in options.data:
        options, own = _with_own_upper(options, context.container_id)
        made = [*made, *own]
    for path in made:
        check_path("storage.driver_options", path)
    options = options._replace(data=tuple(layers(options.data)))

    def mount() -> Mounted:
        for path in made:
            os.close(open_directory(path))
        return mount_filesystem("overlay", storage.source or "overlay", storage.mount_point, options)

    async def remove_own() -> None:
        await run_in_worker(lambda: remove(own), f"remove {own}")

    async def remove_after_failure() -> None:
        try:
            await remove_own()
        except StepFailed:
            pass  # the first failure is the caller's

    try:
        unmount = await mount_async(mount, storage.mount_point)
    except BaseException:
        if own:
            await loop.shield(remove_after_failure())  # the worker may have been killed
        raise

    async def detach() -> None:
        await unmount()
        await remove_own()

    return detach if own else unmount


def remove(directories: list[str]) -> None:
    """Remove directories recursively. It is no error if one does not exist."""
    for path in directories:
        above, name = os.path.split(path)
        try:
            parent = open_without_links(above, os.O_PATH | os.O_DIRECTORY)
            remove_tree(parent, name)
        except FileNotFoundError:
            continue
        os.close(parent)


def _with_own_upper(options: Options, container_id: str) -> tuple[Options, list[str]]:
    """Replace overlay-rw by an upper and a work directory. Return the options and both paths."""
    if not container_id:
        raise Refused("storage.options", f"{OVERLAY_RW} needs a container")
    upper, work = f"{CONTAINERS}/{container_id}/upper", f"{CONTAINERS}/{container_id}/work"
    data = tuple(item for item in options.data if item[0] != OVERLAY_RW)
    return options._replace(data=(*data, ("upperdir", upper), ("workdir", work))), [upper, work]


def layers(data: "tuple[tuple[str, str | None], ...]", release: str | None = None) -> "list[tuple[str, str | None]]":
    """Replace `lowerdir=a:b::c` by one option per layer: lowerdir+=a, lowerdir+=b, datadir+=c.

    A list of several layers is easily longer than LONGEST_VALUE. A kernel `release` before 6.8 (by
    default the running one) knows only the list. Raises Refused if that is too long.
    """
    if _before_6_8(release or os.uname().release):
        if any(key == "lowerdir" and value and len(os.fsencode(value)) > LONGEST_VALUE for key, value in data):
            raise Refused("storage.options", f"lowerdir has more than {LONGEST_VALUE} bytes, which needs Linux 6.8 or later")
        return list(data)
    found: list[tuple[str, str | None]] = []
    for key, value in data:
        if key != "lowerdir" or value is None:
            found.append((key, value))
            continue
        kind = "lowerdir+"
        for position, part in enumerate(split_layers(value)):
            if part:
                found.append((kind, part))
            elif position:
                kind = "datadir+"
    return found


def _before_6_8(release: str) -> bool:
    major, minor, *_ = release.split(".")
    return (int(major), int(minor)) < (6, 8)


def split_layers(text: str) -> list[str]:
    """Split at colons. A backslash makes the next character literal. `::` yields an empty part."""
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == ":":
            parts.append("")
        else:
            parts[-1] += next(characters, "\\") if character == "\\" else character
    return parts
