"""Descriptors from 3 on that the caller passes to the program."""

import fcntl
import os

from agent.errors import Refused
from agent.oci.arguments import Option, Parsed

OPTION = Option("preserve-fds", "pass N more descriptors, from 3 on, to the program", "N")
FIRST = 3


def preserved(parsed: Parsed) -> tuple[tuple[int, ...], list[str]]:
    """Return the descriptors and the environment entries that describe them.

    Those of socket activation come first (sd_listen_fds(3)). Raises Refused for a descriptor that
    the caller has not opened. Our own are recognised by close-on-exec, which all of them have, so
    none is passed on by mistake.
    """
    activated = 0
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "").isdecimal():
        activated = int(os.environ["LISTEN_FDS"])
    more = parsed.number(OPTION.name)
    if not 0 <= more <= 1 << 16:
        raise Refused("--preserve-fds", f"{more} is not between 0 and 65536")
    fds = tuple(range(FIRST, FIRST + activated + more))
    for fd in fds:
        try:
            ours = fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        except OSError:
            ours = True
        if ours:
            raise Refused("--preserve-fds", f"descriptor {fd} is not open")
    return fds, [f"LISTEN_FDS={activated}", "LISTEN_PID=1"] if activated else []
