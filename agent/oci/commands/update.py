"""`update`: change the limits of an existing container."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import loop
from agent.container.spec.document import parse_resources
from agent.container.spec.reader import Document
from agent.oci.arguments import Option, Parsed, UsageError
from agent.oci.bundle import read_json
from agent.oci.command_table import Command, Context
from agent.oci.load_container import load_container
from agent.oci.state_dir import locked

# option -> (object, key) of linux.resources
NUMBERS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-idle": ("cpu", "idle"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "pids-limit": ("pids", "limit"),
}
TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
PAIRS = {"memory": ("limit", "swap"), "cpu": ("period", "quota")}
"""Limits that can only be set together.

The swap limit includes the memory limit, and cgroup v2 has one file for quota and period.
"""
NO_RESCTRL = "no resctrl mount"
OPTIONS = (
    Option("resources", "limits as a JSON document of the specification; - for standard input", "FILE", short="r"),
    *[Option(name, f"linux.resources.{'.'.join(path)}", "N") for name, path in NUMBERS.items()],
    *[Option(name, f"linux.resources.{'.'.join(path)}", "LIST") for name, path in TEXTS.items()],
    Option("kernel-memory", "limit of kernel memory", "N", refused="cgroup v2 has no file for it"),
    Option("kernel-memory-tcp", "limit of socket buffers", "N", refused="cgroup v2 has no file for it"),
    Option("l3-cache-schema", "share of the cache", "SCHEMA", refused=NO_RESCTRL),
    Option("mem-bw-schema", "share of the memory bandwidth", "SCHEMA", refused=NO_RESCTRL),
)


def update(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status.

    If one limit cannot be set, all of them stay as they were.
    """
    changes = _changes(parsed)

    async def main() -> None:
        with locked(context.root, parsed.arguments[0]) as state_dir:
            observed = state_dir.observe()
            record = observed.record
            current = record.resources or (state_dir.load_config().get("linux") or {}).get("resources") or {}
            await load_container(state_dir, observed).update(parse_resources(_with_pairs(changes, current)))
            state_dir.save(replace(record, resources=merged(current, changes)))

    loop.run(main())
    return 0


def _changes(parsed: Parsed) -> Document:
    """Return the changes as a document.

    Memory without a limit has no swap limit either, as in runc.
    """
    changes = _requested(parsed)
    memory = changes.get("memory")
    if isinstance(memory, dict) and memory.get("limit") == -1 and memory.get("swap") is None:
        return {**changes, "memory": {**memory, "swap": -1}}
    return changes


def _requested(parsed: Parsed) -> Document:
    if parsed.has("resources"):
        name = parsed.text("resources")
        return read_json(sys.stdin.fileno() if name == "-" else Path(name), "--resources")
    changes: dict[str, dict[str, Any]] = {}
    for option, (section, key) in NUMBERS.items():
        if parsed.has(option):
            read = parsed.size if section == "memory" else parsed.number
            changes.setdefault(section, {})[key] = read(option)
    for option, (section, key) in TEXTS.items():
        if parsed.has(option):
            changes.setdefault(section, {})[key] = parsed.text(option)
    if not changes:
        raise UsageError("update: nothing to change")
    return dict(changes)


def _with_pairs(changes: Document, current: Document) -> Document:
    """Add the present other half of each pair of which only one half changes."""
    result = dict(changes)
    for section, pair in PAIRS.items():
        part = changes.get(section)
        if isinstance(part, dict) and any(key in part for key in pair):
            before = current.get(section) or {}
            result[section] = {**{key: before[key] for key in pair if before.get(key) is not None}, **part}
    return result


def merged(current: Document, changes: Document) -> Document:
    """Return the limits after the change."""
    result = dict(current)
    for key, value in changes.items():
        before = result.get(key)
        result[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return result


COMMANDS = (Command("update", "change the limits of a container", update, options=OPTIONS),)
