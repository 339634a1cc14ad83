"""Writing the limits of a cgroup: all of a change or none."""

import errno

from agent.container.cgroup import files
from agent.container.cgroup.plan import Write
from agent.errors import Refused


def change_limits(cgroup: int, limits: list[Write]) -> bytes:
    """Write all limits or none, in a worker. `cgroup` is a descriptor of the directory.

    Returns b"" on success. If one is refused the others are restored and the bytes
    `field NUL reason` are returned.
    """
    before: list[Write] = []
    try:
        write_limits(cgroup, limits, before)
    except Refused as error:
        for write in reversed(before):
            try:
                files.write(cgroup, write.file, write.value)
            except OSError:
                continue  # best effort: the other limits are restored nevertheless
        return f"{error.field}\0{error.reason}".encode()
    return b""


def write_limits(cgroup: int, limits: list[Write], before: list[Write] | None = None) -> None:
    """Write limits, appending to `before` what would restore the old values. Raises Refused.

    Only values of one line are recorded: a file with a line per device cannot be restored by a
    single write.
    """
    if not limits:
        return
    controllers = files.read(cgroup, "cgroup.controllers").split()
    for write in limits:
        if write.controller not in controllers and write.controller != "cgroup":
            raise Refused(write.field, f"the cgroup v2 hierarchy has no {write.controller} controller here")
    later: list[Write] = []
    for write in limits:
        if before is not None:
            old = files.read(cgroup, write.file).strip()
            if old and "\n" not in old:
                before.append(Write(write.field, write.controller, write.file, old))
        _write_one(cgroup, write, later)
    for write in later:
        _write_one(cgroup, write, None)


def _write_one(cgroup: int, write: Write, later: list[Write] | None) -> None:
    """Write one limit. Appends it to `later` if it must be written again after the others."""
    try:
        files.write(cgroup, write.file, write.value)
    except FileNotFoundError:
        if write.fallback is not None:
            _write_one(cgroup, write.fallback, later)
            return
        if not write.optional:
            raise Refused(write.field, f"this kernel has no {write.file}") from None
    except OSError as error:
        # cpu.max.burst is checked against cpu.max, which may come after it.
        if later is not None and error.errno == errno.EINVAL and write.file == "cpu.max.burst":
            later.append(write)
            return
        raise Refused(write.field, f"{write.file} does not take {write.value!r}: {error.strerror}") from error
