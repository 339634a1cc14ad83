"""Make the process that serves: its socket, the fork, and what it must not keep of its parent.

The socket listens before the fork, so containerd can connect at once; its first request waits while
the new process still imports. containerd reads the output of `start` to its end, so the new process
must not hold it.
"""

import os
import socket
import traceback
from pathlib import Path

from innkeeper.dial import connect_unix, listen_unix
from innkeeper.shim import log
from innkeeper.shim.arguments import Arguments
from innkeeper.shim.state import State

CONNECT_SECONDS = 2.0
"""Seconds to wait for a shim that has the socket to take a connection."""
OOM_SCORE_MAX = 1000


def listen(path: Path) -> socket.socket | None:
    """Return a socket that listens at `path`, or None if a shim serves there. Raises OSError."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    mask = os.umask(0o177)  # nobody may connect between bind and a chmod
    try:
        try:
            return listen_unix(path)
        except OSError:
            if _is_served(path):
                return None
            path.unlink(missing_ok=True)  # of a shim that was killed
            return listen_unix(path)
    finally:
        os.umask(mask)


def _is_served(path: Path) -> bool:
    try:
        connect_unix(str(path), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def launch(listener: socket.socket, path: Path, arguments: Arguments, bundle: Path) -> None:
    """Fork the process that serves on `listener`, and return in the parent.

    To be called before there is a thread. The child does not return.
    """
    if os.fork() != 0:
        listener.close()
        return
    try:
        _detach()
        log.open_fifo(bundle)
        State(bundle, sockets=[str(path)]).save()
        from innkeeper.shim import serve

        serve.run(listener, path, arguments)
    except Exception:  # noqa: BLE001 - the edge of a process: nobody else hears of it
        log.error(traceback.format_exc())
    finally:
        # The frames above belong to the parent: nothing of them may run here.
        os._exit(0)


def _detach() -> None:
    """Leave the parent's session and standard streams.

    Let the kernel kill this process later than containerd.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    score = Path("/proc/self/oom_score_adj")
    score.write_text(str(min(int(score.read_text()) + 1, OOM_SCORE_MAX)))
