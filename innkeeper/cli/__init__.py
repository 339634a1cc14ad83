"""The command line: one file a verb, each a client of `innkeeper.guest`, `innkeeper.image`, `innkeeper.vm`, `innkeeper.client`."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from innkeeper.errors import InnkeeperError, Interrupted
from innkeeper.progress import printable


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status; 125 is a failure of our own, told in one or two lines on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    open_standard_streams()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _interrupt)
    try:
        return _invoke(words)
    except InnkeeperError as error:
        if os.environ.get("INNKEEPER_DEBUG"):
            raise
        print(f"innkeeper: {printable(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  {printable(error.hint)}", file=sys.stderr)
        return error.exit_status
    except Interrupted as interrupted:
        return 128 + interrupted.signum
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:  # the edge of the process: a bug is told in one line, in full with --debug
        if os.environ.get("INNKEEPER_DEBUG"):
            raise
        print(printable(f"innkeeper: {type(error).__name__}: {error}"), file=sys.stderr)
        print("  this is a bug in innkeeper: run the command again with --debug for the traceback", file=sys.stderr)
        return 125


def open_standard_streams() -> None:
    """Open the null device as each standard stream that the caller has closed, as Go's runtime does for docker.

    The next file that is opened would get the stream's number: output would go into it, and input would come from it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - they are this process's for as long as it lives
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _invoke(words: list[str]) -> int:
    from innkeeper.cli.app import run_app

    return run_app(words)
