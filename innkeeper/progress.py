"""Progress of long work, printed on standard error only: standard output belongs to the container.

On a terminal, each step has a live line (rich). Otherwise a plain line is printed at its start and
its end. `build --progress json` prints an event in JSON per line in place of both.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_native_id
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

_lock = Lock()
_depth = 0
_quiet = False
_plain = False
_json = False
_finished: list[tuple[str, float, float, int, bool]] = []


def be_plain() -> None:
    """Print plain lines from here on, on a terminal too (`build --progress plain`)."""
    global _plain
    _plain = True


def be_json() -> None:
    """Print events in JSON from here on, one per line (`build --progress json`)."""
    global _json
    _json = True


def failure(message: str, hint: str | None, exit_status: int) -> None:
    """Print the error that ends a command: one or two lines, or an event."""
    if _json:
        _event("error", message=message, hint=hint, exit_status=exit_status)
        return
    print(f"innkeeper: {printable(message)}", file=sys.stderr)
    if hint:
        print(f"  {printable(hint)}", file=sys.stderr)


def _event(kind: str, **fields: object) -> None:
    """Print an event. `time` is in seconds since the epoch."""
    import json

    print(json.dumps({"event": kind, "time": round(time.time(), 3), **fields}), file=sys.stderr, flush=True)


def finished() -> list[tuple[str, float, float, int, bool]]:
    """Return the steps of this process that ended, in the order of their ends.

    Each is its title, when it began and how long it took in seconds, its thread, and whether it
    failed.
    """
    return list(_finished)


def be_quiet(quiet: bool = True) -> None:
    """Print no progress from here on (`--quiet`). Errors and warnings are still printed."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Return whether `be_quiet` was called, for passing the setting to another process."""
    return _quiet


def printable(text: str) -> str:
    """Return `text` with unprintable characters escaped, except for newlines and tabs.

    Names in an image must not be able to send control sequences to the terminal.
    """
    return "".join([char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text])


def note(text: str) -> None:
    """Print one line of information."""
    _note(text, _depth)


def _note(text: str, depth: int) -> None:
    if _json and not _quiet:
        _event("note", text=text)
    elif not _quiet:
        print(f"{'  ' * depth}{printable(text)}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print one line that the user should read, even with `--quiet`."""
    if _json:
        _event("warning", text=text)
        return
    print(f"innkeeper: warning: {printable(text)}", file=sys.stderr, flush=True)


def debug(text: str) -> None:
    """Print one line about the cause of a failure or a delay, with `--debug` only."""
    if os.environ.get("INNKEEPER_DEBUG"):
        print(f"innkeeper: {printable(text)}", file=sys.stderr, flush=True)


def _live_line(title: str) -> "Status | None":
    """Return the live line of a step, or None without rich.

    build.py installs rich during a step.
    """
    try:
        from rich.console import Console
        from rich.markup import escape
    except ImportError:
        return None
    return Console(stderr=True).status(escape(title))


class Step:
    """A running step. On a terminal, `update` replaces the text behind its title."""

    def __init__(self, title: str, depth: int = 0) -> None:
        self.title = printable(title)
        is_live = sys.stderr.isatty() and not _quiet and not _plain and not _json and depth == 0
        self._show = _live_line(self.title) if is_live else None
        if self._show is not None:
            self._show.start()
        elif not _json:
            _note(f"{title} ...", depth)

    def update(self, text: str) -> None:
        """Show `text` behind the title (terminal only)."""
        if self._show is not None:
            from rich.markup import escape

            self._show.update(f"{escape(self.title)} [dim]{escape(printable(text))}[/]")

    def _stop(self) -> None:
        if self._show is not None:
            self._show.stop()


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Context manager: print that `title` is being done, and then how long it took.

    Steps during another one, nested or in another thread, are indented.
    """
    global _depth
    with _lock:
        depth = _depth
        _depth += 1
    shown = Step(title, depth)
    if _json and not _quiet:
        _event("started", step=title)
    start = time.monotonic()
    failed = True
    try:
        yield shown
        failed = False
    finally:
        with _lock:
            _depth -= 1
        shown._stop()
        seconds = time.monotonic() - start
        _finished.append((shown.title, start, seconds, get_native_id(), failed))
        if _json and not _quiet:
            _event("failed" if failed else "finished", step=title, seconds=round(seconds, 3))
        elif not _json:
            _note(f"{title}: {'failed after' if failed else 'done in'} {seconds:.1f} s", depth)
