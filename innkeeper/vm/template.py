"""Templates: saved VMs that new ones start from, kept by a key in the cache.

    <cache>/templates/<key>/ram            the guest's memory, sparse
    <cache>/templates/<key>/state          the state of the devices
    <cache>/templates/<key>/template.json  what the two must look like; its mtime is the last use
    <cache>/templates/<key>/lock           flock(2): shared while a clone starts from it
    <cache>/templates/.<key>.making        flock(2): held by the process that makes it
    <cache>/templates/.<key>.failed        why that did not work; it is not tried again for a while

The key covers everything that must be equal for the state to fit: QEMU, its options, the kernel,
the root, the accelerator and what is known of the processor. A template that is not whole is never
used.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innkeeper import files
from innkeeper.errors import InnkeeperError
from innkeeper.paths import templates_root
from innkeeper.vm import qemu

FORMAT = 2
"""Part of the key: to be raised when the making of templates changes."""
LIMIT = 2 << 30
"""Bytes on disk that all templates together may take."""
REMOVED = ".removed"
"""The end of the name of a template's folder while it is removed."""
RETRY_SECONDS = 3600.0
"""Seconds after a failure until a template of the same key is tried again."""


@dataclass(frozen=True)
class Template:
    """A whole template, of which the caller holds the lock shared."""

    key: str
    folder: Path

    @property
    def ram(self) -> Path:
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        return self.folder / "state"


def key_of(launch: qemu.Launch) -> str:
    """Return the key of the template that a VM of these options starts from.

    What may differ between a template and its clones is replaced: name, forwards, shares, a card on
    a `Tap`, the files behind the disks, descriptors.
    """
    config = launch.config
    disks = tuple(replace(disk, path=config.root) for disk in config.disks)
    config = replace(config, disks=disks, shares=(), forwards=(), network=config.network is True)
    common = replace(launch, config=config, name="", forwards=(), share_fds=(), qmp_fd=0, ram="", ram_private=False, incoming=False)
    channel = replace(common, vsock_chardev="", generation="")
    boot_files = [_identity(path) for path in (Path(launch.program), config.kernel, config.root, config.initrd) if path is not None]
    known = {"format": FORMAT, "options": qemu.arguments(channel), "files": boot_files, "host": _processor(launch.accel)}
    return files.sha256(json.dumps(known, sort_keys=True).encode())[:32]


def _identity(path: Path) -> list[object]:
    """Return what changes when the file changes."""
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def _processor(accel: str) -> list[str]:
    """Return what the guest sees of this host's processor: under KVM, its model and microcode."""
    if accel != "kvm":
        return []
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return [line for line in lines if line.split("\t")[0] in ("model name", "microcode", "stepping", "flags")]


@contextmanager
def found(key: str) -> Iterator[Template | None]:
    """Context manager: yield the template with this key, or None if there is none.

    It is not removed before the end of the `with`. One that is not whole is removed at once, and is
    an error, so that no user has it replaced in silence. Raises InnkeeperError.
    """
    template, lock, being_removed = Template(key, templates_root() / key), None, False
    try:
        lock = files.lock(template.folder / "lock", flags=os.O_RDONLY, shared=True, wait=False)
    except BlockingIOError:
        being_removed = True
    except (FileNotFoundError, NotADirectoryError):
        pass  # there is none, or its lock is gone
    try:
        if lock is not None and _is_whole(template):
            os.utime(template.folder / "template.json")
            yield template
            return
    finally:
        if lock is not None:
            os.close(lock)
    made_meanwhile = lock is None and (template.folder / "lock").exists()
    if template.folder.is_dir() and not being_removed and not made_meanwhile:
        remove(key)
        raise InnkeeperError("the template is damaged: its files are not those that were saved")
    yield None


def exists(key: str) -> bool:
    """Return whether there is a template with this key, without a look at its files."""
    return (templates_root() / key / "template.json").exists()


def remove(key: str) -> bool:
    """Remove a template, unless a clone starts from it at this moment.

    Return whether it is gone.
    """
    folder = templates_root() / key
    try:
        lock = files.lock(folder / "lock", flags=os.O_RDONLY, wait=False)
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)  # half removed
        return True
    except BlockingIOError:
        return False
    hidden = folder.with_name(f".{key}.{os.urandom(4).hex()}{REMOVED}")
    try:
        folder.rename(hidden)  # at once: what is half removed looks like a damaged one
    except OSError:
        return not folder.exists()
    else:
        shutil.rmtree(hidden, ignore_errors=True)
        return True
    finally:
        os.close(lock)


def publish(key: str, ram: Path, state: Path, kernel: Path) -> None:
    """Make a template of two finished files, which are moved. Replaces a template of the same key.

    `kernel` is the guest's, by which the installation is known that it belongs to.

    It gets its name only when it is whole. Raises OSError.
    """
    root = templates_root()
    part = root / f".{key}.{os.urandom(4).hex()}"
    part.mkdir(mode=0o700)
    try:
        (part / "lock").touch(mode=0o600)
        for source, name in ((ram, "ram"), (state, "state")):
            source.rename(part / name)
        facts = {"ram": _facts(part / "ram"), "state": _facts(part / "state"), "created": time.time(), "kernel": str(kernel)}
        (part / "template.json").write_text(json.dumps(facts) + "\n")
        remove(key)
        part.rename(root / key)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    files.sync_folder(root)


def _facts(path: Path) -> list[int]:
    """Return what `_is_whole` compares.

    A rename keeps it, a copy or a change of the content does not.
    """
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _is_whole(template: Template) -> bool:
    try:
        known: Any = json.loads((template.folder / "template.json").read_bytes())
        return bool(known["ram"] == _facts(template.ram) and known["state"] == _facts(template.state))
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def making(key: str, *, wait: bool = False) -> Iterator[bool]:
    """Context manager: yield whether this process may make the template.

    Only one does at a time. With `wait` it may once the other one has ended. Leftovers of one that
    was killed are removed.
    """
    root = templates_root()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        lock = files.lock(root / f".{key}.making", wait=wait, work="makes a template of the guest")
    except BlockingIOError:
        yield False
        return
    try:
        for part in root.glob(f".{key}.????????"):
            shutil.rmtree(part, ignore_errors=True)
        yield True
    finally:
        os.close(lock)


def note_failure(key: str, why: str) -> None:
    """Remember that the template could not be made. Raises OSError."""
    with files.replaced(templates_root() / f".{key}.failed") as part:
        part.write_text(why + "\n")


def recent_failure(key: str) -> str | None:
    """Return why the template could not be made a short time ago, or None."""
    path = templates_root() / f".{key}.failed"
    try:
        if time.time() - path.stat().st_mtime < RETRY_SECONDS:
            return path.read_text().strip()
    except OSError:
        pass  # it has not failed
    return None


def prune(limit: int = LIMIT, keep: str = "") -> None:
    """Remove the least recently used templates until the rest take at most `limit` bytes on disk.

    That with the key `keep` stays.
    """
    _sweep()
    known = sorted(_all(), key=lambda entry: entry[1], reverse=True)
    total = sum(size for key, _, size in known if key == keep)
    for key, _, size in known:
        if key == keep:
            continue
        if total + size <= limit or not remove(key):
            total += size


def remove_with_kernel(below: Path) -> list[Path]:
    """Remove the templates of guests whose kernel is below a folder, and their empty folder.

    Return those that stay, because a clone starts from them at this moment.
    """
    _sweep()
    root, stay = templates_root(), []
    for key, _, _ in list(_all()):
        try:
            kernel = Path(json.loads((root / key / "template.json").read_bytes()).get("kernel", ""))
        except (OSError, ValueError):
            continue
        if below not in kernel.parents:
            continue
        if not remove(key):
            stay.append(root / key)
            continue
        for name in ("making", "failed"):
            (root / f".{key}.{name}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or not empty
        root.rmdir()
    return stay


def _sweep() -> None:
    """Remove what is left of templates whose removal was killed."""
    for folder in templates_root().glob(f".*{REMOVED}"):
        shutil.rmtree(folder, ignore_errors=True)


def summary() -> tuple[int, int, str | None]:
    """Return how many templates there are, their bytes on disk, and why the last one failed.

    The reason is None if none failed lately.
    """
    known = list(_all())
    failures = (recent_failure(path.name[1:].removesuffix(".failed")) for path in templates_root().glob(".*.failed"))
    return len(known), sum(size for _, _, size in known), next(filter(None, failures), None)


def _all() -> Iterator[tuple[str, float, int]]:
    """Yield key, time of the last use and bytes on disk of each template."""
    for folder in templates_root().glob("[!.]*/"):
        try:
            used = (folder / "template.json").stat().st_mtime
            yield folder.name, used, sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        except OSError:
            continue  # being removed
