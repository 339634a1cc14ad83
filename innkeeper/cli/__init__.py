"""The command line, with one file per command.

Commands are clients of `innkeeper.guest`, `innkeeper.image`, `innkeeper.vm`, `innkeeper.engine` and
`innkeeper.client`.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from innkeeper.engine.process_setup import open_standard_streams, raise_interrupted
from innkeeper.errors import InnkeeperError, Interrupted


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Return its exit status.

    Errors are printed as one or two lines on standard error. Our own failures return 125, unless
    the error has a status of its own, and a signal n that interrupts us returns 128+n.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    open_standard_streams()
    raise_interrupted()
    try:
        status = _invoke(words)
        sys.stdout.flush()  # here a reader that is gone is no bug
        return status
    except InnkeeperError as error:
        if os.environ.get("INNKEEPER_DEBUG"):
            raise
        return _print_failure(error.message, error.hint, error.exit_status)
    except Interrupted as interrupted:
        return 128 + interrupted.signum
    except BrokenPipeError:
        # The reader of our output is gone. Without this, Python would report that again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:  # a bug: one line, or with --debug the traceback
        if os.environ.get("INNKEEPER_DEBUG"):
            raise
        hint = "this is a bug in innkeeper: run the command again with --debug for the traceback"
        return _print_failure(f"{type(error).__name__}: {error}", hint, 125)


def run_and_leave() -> NoReturn:
    """Run one command as `main`, and end this process.

    The interpreter's own end, module by module, takes a twentieth of a short command.
    """
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # its reader is gone
            stream.flush()
    os._exit(status)


def _print_failure(message: str, hint: str | None, exit_status: int) -> int:
    from innkeeper import progress

    progress.failure(message, hint, exit_status)
    return exit_status


def _invoke(words: list[str]) -> int:
    from innkeeper.cli.app import run_app

    return run_app(words)
