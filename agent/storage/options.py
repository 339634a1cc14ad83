"""Parsing mount options into mount attributes, propagation and the filesystem's own options."""

from collections.abc import Iterable
from typing import NamedTuple

from agent.errors import Refused
from agent.linux.mount import MOUNT_ATTR_RDONLY
from agent.linux.mount_options import ATTRIBUTES, CONTEXTS, LENGTH_MAX, PROPAGATION, RECURSIVE_ATTRIBUTES, RECURSIVE_PROPAGATION, combine

_ATTRIBUTES = {**ATTRIBUTES, **RECURSIVE_ATTRIBUTES}
_IMPLIED = {"user": "nosuid,nodev,noexec", "users": "nosuid,nodev,noexec", "group": "nosuid,nodev", "owner": "nosuid,nodev"}
"""Options of fstab(5) for who may mount a line -> the options that mount(8) implies by them."""
_FOR_MOUNT = frozenset(("defaults", "_netdev", "auto", "noauto", "nofail", "nouser", "nogroup", "noowner", "silent", "loud"))
"""Options that do not affect the mount itself.

They come from fstab(5) with a volume's options, and say when to mount and what to log.
"""
COMMENT = "x-"
SHIM = "io.katacontainers.fs-opt."
OVERLAY_RW = f"{SHIM}overlay-rw"
_SHIM_OPTIONS = (f"{SHIM}is-layer", f"{SHIM}block_device=file", f"{SHIM}layer=", f"{SHIM}layer-src-prefix=")
"""Options by which a snapshotter instructs Kata's shim. The shim has acted on them and forwards
them unchanged."""


class Options(NamedTuple):
    """Parsed mount options.

    `attributes` are MOUNT_ATTR_* bits to set and `cleared` those to clear (mount_setattr(2)).
    `propagation` is an MS_* value or 0, and with `propagate_below` also holds for the mounts below.
    `data` are the filesystem's own options in their order, with the value None for a bare word.
    """

    attributes: int
    cleared: int
    propagation: int
    propagate_below: bool
    bind: bool
    recursive: bool
    remount: bool
    data: tuple[tuple[str, str | None], ...]

    @property
    def read_only(self) -> bool:
        """Whether the mount is read-only: `ro` came after any `rw`."""
        return bool(self.attributes & MOUNT_ATTR_RDONLY)

    def value(self, key: str) -> str | None:
        """Return the value of the last option named `key`, or None if there is none."""
        return next((value for name, value in reversed(self.data) if name == key), None)


def words(options: Iterable[str]) -> list[str]:
    """Split each option at commas and return the single words.

    A comma after a backslash, or in a quoted value of SELinux, belongs to the word. Raises Refused
    for a NUL character and for more than a page of options.
    """
    found: list[str] = []
    for option in options:
        if "\0" in option:
            raise Refused("storage.options", "an option with a NUL character")
        parts = option.split(",")
        while parts:
            word = parts.pop(0)
            while parts and (_ends_in_escape(word) or _in_quotes(word)):
                word += "," + parts.pop(0)
            if word:
                found.append(word)
    if sum(len(word) + 1 for word in found) > LENGTH_MAX:
        raise Refused("storage.options", f"more than {LENGTH_MAX} characters")
    return found


def _ends_in_escape(word: str) -> bool:
    """Return whether the next comma is escaped: an odd number of backslashes ends `word`."""
    return (len(word) - len(word.rstrip("\\"))) % 2 == 1


def _in_quotes(word: str) -> bool:
    return word.partition("=")[0] in CONTEXTS and word.count('"') == 1


def parse(options: Iterable[str]) -> Options:
    """Parse mount options. Of two that contradict each other the last one counts.

    `rro` and the other recursive attributes are treated as `ro` and so on, because attributes are
    always applied to the whole tree of a recursive bind. Raises Refused for `loop`, as the agent
    sets up no loop device, and for an unknown option of Kata's shim.
    """
    attributes = 0, 0
    propagation = 0
    propagate_below = bind = recursive = remount = False
    data: list[tuple[str, str | None]] = []
    for word in _expanded(words(options)):
        key, equals, value = word.partition("=")
        if key == "loop":
            raise Refused("storage.options", "loop devices are not set up in the guest")
        if word in _ATTRIBUTES:
            attributes = combine(attributes, _ATTRIBUTES[word])
        elif word in PROPAGATION:
            propagation, propagate_below = PROPAGATION[word], False
        elif word in RECURSIVE_PROPAGATION:
            propagation, propagate_below = RECURSIVE_PROPAGATION[word], True
        elif word in ("bind", "rbind"):
            bind, recursive = True, recursive or word == "rbind"
        elif word == "remount":
            remount = True
        elif not _ignored(word):
            data.append((key, (value.strip('"') if key in CONTEXTS else value) if equals else None))
    return Options(
        attributes=attributes[0],
        cleared=attributes[1],
        propagation=propagation,
        propagate_below=propagate_below,
        bind=bind,
        recursive=recursive,
        remount=remount,
        data=tuple(data),
    )


def _expanded(given: Iterable[str]) -> Iterable[str]:
    for word in given:
        yield from _IMPLIED[word].split(",") if word in _IMPLIED else (word,)


def _ignored(word: str) -> bool:
    """Return whether a word is to be dropped because it means nothing to the kernel.

    Raises Refused for an unknown option of Kata's shim, since dropping it could change the mount.
    """
    if word.startswith(SHIM) and word != OVERLAY_RW:
        if not word.startswith(_SHIM_OPTIONS):
            raise Refused("storage.options", f"{word[:80]} is unknown")
        return True
    return word in _FOR_MOUNT or word.startswith(COMMENT)
