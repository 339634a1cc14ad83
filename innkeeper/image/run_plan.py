"""Plan everything that a run needs from the VM and the agent, before the VM starts.

Paths in the guest are those that Kata's shim uses, so that the agent has a single layout.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from innkeeper.errors import InnkeeperError
from innkeeper.image.block_device import Image
from innkeeper.image.option_values import parse_ports
from innkeeper.image.run_options import Port, RunOptions
from innkeeper.image.security_opt import mount_context
from innkeeper.image.spec import build_spec
from innkeeper.image.volume_shares import SANDBOX, VolumeShare, plan_volumes, share_storage
from innkeeper.wire.pb import agent_pb2

CONTAINERS = "/run/kata-containers"
COPIED_FILES = "/run/kata-containers/shared/containers"
"""The directory that CopyFile may write to."""
ANONYMOUS = f"{SANDBOX}/image-volumes"
"""A second, writable view of the image.

A container with a read-only root gets the image's own volumes from it.
"""
ETC_FILES = ("resolv.conf", "hosts", "hostname")


@dataclass(frozen=True)
class RunPlan:
    """The parts of a run.

    `storages` go into CreateContainer, as does `document` after `to_proto`. `copied_files` maps a
    name in /etc to its path in the guest.
    """

    shares: tuple[VolumeShare, ...]
    forwards: tuple[Port, ...]
    storages: tuple[agent_pb2.Storage, ...]
    copied_files: Mapping[str, str]
    document: dict[str, object]
    stop_signal: str


def plan_run(
    image: Image, options: RunOptions, container_id: str, *, image_disk: str = "/dev/vdb", scratch_disk: str = "/dev/vdc"
) -> RunPlan:
    """Plan a run of `image` in a container `container_id`.

    Raises InnkeeperError, which names the flag that cannot be honoured.
    """
    shares, sources = plan_volumes(options.volumes)
    context = mount_context(options, container_id)
    storages = [*_root_storages(container_id, image_disk, scratch_disk, context), *[share_storage(share, context) for share in shares]]
    anonymous = _anonymous_volumes(image, options)
    if anonymous:
        storages.append(_anonymous_storage(container_id, [source for source, exists in anonymous.values() if not exists], context))
    copied = {name: f"{COPIED_FILES}/{container_id}-{name}" for name in ETC_FILES}
    document = build_spec(
        image,
        options,
        container_id=container_id,
        root_path=f"{CONTAINERS}/{container_id}/rootfs",
        volume_sources=sources,
        files={f"/etc/{name}": place for name, place in copied.items()},
        image_volumes={place: f"{ANONYMOUS}{source}" for place, (source, _) in anonymous.items()},
    )
    stop_signal = options.stop_signal or image.config.stop_signal or "SIGTERM"
    return RunPlan(
        shares=tuple(shares),
        forwards=tuple(_published(image, options)),
        storages=tuple(storages),
        copied_files=copied,
        document=document,
        stop_signal=stop_signal,
    )


def _published(image: Image, options: RunOptions) -> list[Port]:
    """Return the ports of `-p`, and with `-P` a free host port for each other exposed one."""
    if not options.publish_all:
        return list(options.ports)
    published = {(port.container_port, port.protocol) for port in options.ports}
    for text in image.config.exposed_ports:
        if ":" in text:  # parse_ports reads an address and a port of the host, which an image must not choose
            raise InnkeeperError(f"image {image.reference}, ExposedPorts {text}: must be PORT[/tcp|udp]")
    exposed = [port for text in image.config.exposed_ports for port in parse_ports(text, f"image {image.reference}, ExposedPorts")]
    return [*options.ports, *(port for port in exposed if (port.container_port, port.protocol) not in published)]


def _anonymous_volumes(image: Image, options: RunOptions) -> dict[str, tuple[str, bool]]:
    """Return the volumes of the image's config, as {path in the container: (folder, exists)}.

    `folder` is the one in the image, and `exists` says whether the image has it. docker gives each
    a volume, filled from the image. Here the container's own root serves as well: it is written to
    the scratch disk, and is removed with the container as an anonymous volume is with --rm. Only
    with a read-only root is there a difference, because these paths stay writable. Parents come
    before the paths below them.
    """
    if not options.read_only:
        return {}
    taken = {volume.destination for volume in options.volumes} | {tmpfs.destination for tmpfs in options.tmpfs}
    found = {}
    for volume in image.config.volumes:
        place = os.path.normpath(volume)
        if not volume.startswith("/") or place == "/":
            raise InnkeeperError(f"image {image.reference}: its volume {volume!r} is not an absolute path below /")
        if place not in taken:
            folder = image.volumes.get(volume)
            found[place] = (folder or place, folder is not None)
    return dict(sorted(found.items(), key=lambda entry: entry[0].count("/")))


def _anonymous_storage(container_id: str, missing: Sequence[str], context: Sequence[str]) -> agent_pb2.Storage:
    base = f"{SANDBOX}/scratch/{container_id}"
    upper, work = f"{base}/volumes-upper", f"{base}/volumes-work"
    return _overlay(ANONYMOUS, upper, work, context, [f"{upper}{path}" for path in missing])


def _root_storages(container_id: str, image_disk: str, scratch_disk: str, context: Sequence[str]) -> list[agent_pb2.Storage]:
    """Return the storages of the root: the image, with a folder of the scratch disk over it."""
    lower, scratch = f"{SANDBOX}/image", f"{SANDBOX}/scratch"
    upper, work = f"{scratch}/{container_id}/upper", f"{scratch}/{container_id}/work"
    return [
        agent_pb2.Storage(driver="blk", source=image_disk, fstype="erofs", mount_point=lower, options=["ro"]),
        agent_pb2.Storage(driver="blk", source=scratch_disk, fstype="ext4", mount_point=scratch),
        _overlay(f"{CONTAINERS}/{container_id}/rootfs", upper, work, context),
    ]


def _overlay(place: str, upper: str, work: str, context: Sequence[str], more: Sequence[str] = ()) -> agent_pb2.Storage:
    """Return an overlay of the image and a writable layer.

    `more` are folders that the upper layer has from the start.
    """
    return agent_pb2.Storage(
        driver="overlayfs",
        driver_options=[f"io.katacontainers.volume.overlayfs.create_directory={path}" for path in (upper, work, *more)],
        source="none",
        fstype="overlay",
        mount_point=place,
        options=[f"lowerdir={SANDBOX}/image", f"upperdir={upper}", f"workdir={work}", *context],
    )
