"""Descriptors that the caller passes through to the program, from 3 on."""

import fcntl
import os

from agent.errors import Refused
from agent.oci.arguments import Option, Parsed

OPTION = Option("preserve-fds", "pass N more descriptors, from 3 on, to the program", "N")
FIRST = 3


def preserved(parsed: Parsed) -> tuple[tuple[int, ...], list[str]]:
    """The descriptors, and what the program's environment says of them: those of socket activation (sd_listen_fds(3)) come first.

    Raises Refused for one that the caller did not open: ours are all close-on-exec, so that none can slip in.
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
