"""Checks of single tables of `guest.toml`: a file for the root, and the agent's settings."""

import difflib
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from innkeeper.errors import InnkeeperError

HIDDEN = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/run")
"""Folders over which the guest mounts at boot. A file of the root cannot be seen there."""
KINDS = ("source", "text", "link", "folder")

AGENT_SETTINGS = (
    *("server_addr", "grpc_addr", "log_level", "hotplug_timeout", "container_pipe_size", "cdi_timeout", "visible_cdi_devices"),
    *("debug_console", "debug_console_vport", "dev_mode", "log_vport", "passfd_listener_port", "policy_file", "port_forward_vport"),
)
"""The keys that the agent knows.

A test compares them with `agent.config`, which a host does not import.
"""


def check_file(entry: Mapping[str, Any], where: str) -> None:
    """Raise InnkeeperError unless the table describes one file, folder or link at a usable path."""
    path = entry.get("path", "")
    if not path.startswith("/") or posixpath.normpath(path) != path or path == "/" or "\0" in path or "\n" in path:
        raise InnkeeperError(f"{where}: path = {path!r}: not an absolute path without '.' and '..'")
    for hidden in HIDDEN:
        if path == hidden or path.startswith(f"{hidden}/"):
            raise InnkeeperError(
                f"{where}: path = {path!r}: the guest mounts another file system over {hidden}", hint="choose another folder"
            )
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) != 1:
        raise InnkeeperError(f"{where}: {path} needs exactly one of {', '.join(KINDS)}, not {', '.join(kinds) or 'none'}")
    if kinds != ["text"] and not entry[kinds[0]]:
        raise InnkeeperError(f"{where}: {kinds[0]} = {entry[kinds[0]]!r}: not a value for {path}")
    if not re.fullmatch(r"[0-7]{3,4}", entry.get("mode", "0644")):
        raise InnkeeperError(f"{where}: mode = {entry['mode']!r}: not three or four octal digits")
    if "mode" in entry and kinds == ["link"]:
        raise InnkeeperError(f"{where}: a link has no mode")
    owner = re.fullmatch(r"(\d{1,5}):(\d{1,5})", entry.get("owner", "0:0"))
    if owner is None or max(int(owner[1]), int(owner[2])) > 65534:
        raise InnkeeperError(f"{where}: owner = {entry['owner']!r}: not two numbers up to 65534, as in 1000:1000")


def check_settings(settings: Mapping[str, Any], where: str) -> None:
    """Raise InnkeeperError for a key that the agent does not know, or a value that is not plain."""
    for key, value in settings.items():
        if key not in AGENT_SETTINGS:
            close = difflib.get_close_matches(key, AGENT_SETTINGS, 1)
            hint = f"did you mean agent.settings.{close[0]}?" if close else f"known keys are {', '.join(AGENT_SETTINGS)}"
            raise InnkeeperError(f"{where}: unknown key agent.settings.{key}", hint=hint)
        if not isinstance(value, str | int | bool):
            raise InnkeeperError(f"{where}: agent.settings.{key} = {value!r}: not a string, a whole number, true or false")
