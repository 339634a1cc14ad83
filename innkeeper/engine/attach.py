"""Run a guest process in the foreground.

Its standard streams are connected to this process's own, signals are forwarded to it, and its exit
status becomes the result.
"""

import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from innkeeper.client import RpcError
from innkeeper.engine import streams, terminal
from innkeeper.engine.guest_agent import Process
from innkeeper.errors import InnkeeperError, Interrupted

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SIGNALS_BEFORE_EXIT = 3
"""SIGINT and SIGTERM that end this process even if the container ignores them, as docker does."""


def check_terminal(interactive: bool, tty: bool) -> None:
    """Raise InnkeeperError for -i and -t if standard input is not a terminal, as docker does."""
    if interactive and tty and not os.isatty(0):
        raise InnkeeperError("the input device is not a terminal", hint="leave -t out to pipe data in")


def attach_streams(process: Process, *, interactive: bool, tty: bool) -> int:
    """Carry the streams and signals of `process` until it ends. Return its exit status.

    Returns 128 + SIGPIPE, after killing the process, if nobody reads our output any more.
    """
    with ExitStack() as stack:
        control = stack.enter_context(_signals(process, tty))
        if tty:
            control.put(signal.SIGWINCH)
        typed = stack.enter_context(terminal.raw()) if interactive and tty else b""
        ended: queue.SimpleQueue[streams.Pump] = queue.SimpleQueue()
        outputs = [streams.output(process.read_stdout, streams.to_descriptor(1), "stdout", ended)]
        if not tty:
            outputs.append(streams.output(process.read_stderr, streams.to_descriptor(2), "stderr", ended))
        if interactive:
            stack.callback(streams.StdinPump(process, 0, typed).stop)
        elif not tty:
            process.close_stdin()
        try:
            for _ in outputs:
                # In the order in which they end. One whose reader is gone takes nothing more from
                # the process, which may then wait forever, and the other pump with it.
                _next_interruptibly(ended).finish()
        except BrokenPipeError:
            # Nobody reads our output any more. SIGPIPE would kill a local program here.
            process.signal(signal.SIGKILL)
            return 128 + signal.SIGPIPE
        return process.wait()


def _next_interruptibly(ended: "queue.SimpleQueue[streams.Pump]") -> streams.Pump:
    """Return the next pump that has ended, waiting with a timeout, again and again.

    Python runs signal handlers in the main thread, between two bytecodes. A wait without a timeout
    would hold back a handler that raises Interrupted.
    """
    while True:
        try:
            return ended.get(timeout=3600)
        except queue.Empty:
            continue


@contextmanager
def _signals(process: Process, tty: bool) -> "Iterator[queue.SimpleQueue[int]]":
    """Context manager: forward signals to `process`, and a changed window size to its terminal.

    Signals that this process inherited as ignored stay ignored: nohup(1) sets that, and so does a
    shell that starts a job in the background. The handlers only put the number into a queue. A
    thread makes the calls to the agent, because a handler may interrupt the main thread inside
    another call.
    """
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    received = 0

    def receive(signum: int, frame: FrameType | None) -> None:
        nonlocal received
        received += signum in (signal.SIGINT, signal.SIGTERM)
        if received >= SIGNALS_BEFORE_EXIT:
            raise Interrupted(signum)
        pending.put(signum)

    forwarded = FORWARDED + ((signal.SIGWINCH,) if tty else ())
    before = {signum: handler for signum in forwarded if (handler := signal.getsignal(signum)) != signal.SIG_IGN}
    for signum in before:
        signal.signal(signum, receive)
    forwarder = threading.Thread(target=_forward, args=(process, pending), name="signals", daemon=True)
    forwarder.start()
    try:
        yield pending
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        pending.put(0)


def _forward(process: Process, pending: "queue.SimpleQueue[int]") -> None:
    """Send the signals in `pending` to the process, until a 0 or until it is gone."""
    while signum := pending.get():
        try:
            if signum != signal.SIGWINCH:
                process.signal(signum)
            elif found := terminal.size():
                process.resize(*found)
        except (RpcError, InnkeeperError, OSError):
            # The process or the guest is gone: the thread that reads its output gets the reason.
            return
