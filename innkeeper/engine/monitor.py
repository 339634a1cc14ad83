"""The process behind a detached container, which owns the VM.

It writes the container's output to the log and records its exit status. `start` launches it and
waits for its answer, one line of JSON: an id, or an error. Until then it shares our standard error,
so that progress is visible. After that it holds no descriptor of ours.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import typer

from innkeeper import progress
from innkeeper.errors import InnkeeperError

if TYPE_CHECKING:
    from innkeeper.engine.resolve import ResolvedRun
    from innkeeper.engine.session import Session


def register(app: typer.Typer) -> None:
    """Add the command to `app`. Only `start` uses it."""
    app.command("keeper", hidden=True)(keeper)


def start(resolved: "ResolvedRun") -> int:
    """Start a keeper for `plan` and print the container's id once it runs. Return 0.

    Raises InnkeeperError with the keeper's error, or if the keeper ends without an answer.
    """
    quiet = ["--quiet"] if progress.is_quiet() else []
    argv = [sys.executable, "-m", "innkeeper.cli", *quiet, "keeper"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None and process.stdout is not None
    line = b""
    try:
        with process.stdin:
            pickle.dump(resolved, process.stdin)
        line = process.stdout.readline()
    except BrokenPipeError:
        pass  # it ended at once: its error is already on our standard error
    finally:
        if not line:
            process.terminate()
    if not line:
        raise InnkeeperError(f"the keeper of the container ended with status {process.wait()} and no answer")
    reply = json.loads(line)
    if "id" not in reply:
        error = InnkeeperError(reply["message"], hint=reply["hint"])
        error.exit_status = reply["exit_status"]
        raise error
    print(reply["id"])
    return 0


def keeper() -> int:
    """Run a detached container from a plan on standard input."""
    from innkeeper.engine import session

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    resolved: ResolvedRun = pickle.load(sys.stdin.buffer)
    answered = False
    try:
        with session.opened(resolved) as opened:
            opened.start()
            _reply({"id": opened.id})
            answered = True
            _detach(opened)
            status = _log_output(opened)
            opened.finish(status)
    except InnkeeperError as error:
        if answered:
            raise
        _reply({"message": error.message, "hint": error.hint, "exit_status": error.exit_status})
    return 0


def _reply(reply: dict[str, object]) -> None:
    """Send `answer` to `start`, then replace the pipes on descriptors 0 and 1 with /dev/null."""
    with os.fdopen(os.dup(1), "w") as pipe:
        pipe.write(json.dumps(reply) + "\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _detach(opened: "Session") -> None:
    """Detach from the process that started us: log to keeper.log, and leave its folder.

    Otherwise the keeper would hold the terminal open and keep the folder's file system busy.
    """
    log = os.open(opened.folder / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.close(log)
    os.chdir("/")


def _log_output(opened: "Session") -> int:
    """Copy the output of the container to its log until it ends. Return its exit status.

    Its standard input is closed. With -i or -t it stays open, though nothing is written to it.
    """
    from innkeeper.engine import logfile, records, streams

    log = logfile.LogWriter(opened.folder / records.LOG)
    process = opened.process
    pumps = [streams.output(process.read_stdout, log.stream("stdout"), "stdout")]
    if not opened.resolved.options.tty:
        pumps.append(streams.output(process.read_stderr, log.stream("stderr"), "stderr"))
        if not opened.resolved.options.interactive:
            process.close_stdin()
    try:
        for pump in pumps:
            pump.finish()
        return process.wait()
    finally:
        log.close()
