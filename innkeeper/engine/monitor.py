"""The monitor of a detached container: the process that owns its VM.

It writes the container's output to the log and records its exit status. `start` launches it and
waits for its reply, one line of JSON: an id, or an error. Until then it shares our standard error,
so that progress is visible. After that it holds no descriptor of ours.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence

from innkeeper import progress
from innkeeper.engine import forks, logfile, process_setup, records, session, streams
from innkeeper.engine.forks import Fork
from innkeeper.engine.resolve import ResolvedRun
from innkeeper.engine.session import Session
from innkeeper.errors import InnkeeperError, Interrupted
from innkeeper.vm import child_processes

QUIET = "--quiet"


def start(resolved: ResolvedRun | Fork) -> str:
    """Start a monitor for a run or a fork. Return the container's id once the container runs.

    Raises InnkeeperError with the monitor's error, or if the monitor ends without a reply.
    """
    argv = [sys.executable, "-P", "-m", "innkeeper.engine.monitor", *([QUIET] if progress.is_quiet() else [])]
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
        process.stdout.close()
        if not line:
            process.terminate()
    if not line:
        raise InnkeeperError(f"the container's monitor ended with status {process.wait()} before the container ran")
    child_processes.leave(process)
    reply = json.loads(line)
    if "id" not in reply:
        raise InnkeeperError(**reply)
    return str(reply["id"])


def main(arguments: Sequence[str]) -> int:
    """Run a detached container from the pickled ResolvedRun or Fork on standard input."""
    process_setup.open_standard_streams()
    progress.be_quiet(QUIET in arguments)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    process_setup.raise_interrupted()
    replied = False
    try:
        wanted = pickle.load(sys.stdin.buffer)
        with forks.opened(wanted) if isinstance(wanted, Fork) else session.opened(wanted) as opened:
            opened.start()
            _reply({"id": opened.id})
            replied = True
            _detach(opened)
            opened.finish(_log_output(opened))
    except Interrupted as interrupted:
        return 128 + interrupted.signum
    except InnkeeperError as error:
        if replied:
            raise
        _reply({"message": error.message, "hint": error.hint, "exit_status": error.exit_status})
    return 0


def _reply(reply: dict[str, object]) -> None:
    """Send `reply` to `start`, then replace the pipes on descriptors 0 and 1 with /dev/null."""
    with os.fdopen(os.dup(1), "w") as pipe:
        pipe.write(json.dumps(reply) + "\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _detach(opened: Session) -> None:
    """Detach from the process that started us: log to monitor.log, and leave its folder.

    Otherwise the monitor would hold the terminal open and keep the folder's file system busy.
    """
    log = os.open(opened.folder / "monitor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.close(log)
    os.chdir("/")


def _log_output(opened: Session) -> int:
    """Copy the output of the container to its log until it ends. Return its exit status.

    Its standard input is closed. With -i or -t it stays open, though nothing is written to it.
    """
    log = logfile.LogWriter(opened.folder / records.LOG)
    process = opened.process
    pumps = [streams.output(process.read_stdout, log.stream("stdout"), "stdout")]
    if not opened.facts["terminal"]:
        pumps.append(streams.output(process.read_stderr, log.stream("stderr"), "stderr"))
        if not opened.interactive:
            process.close_stdin()
    try:
        for pump in pumps:
            pump.finish()
        return process.wait()
    finally:
        log.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
