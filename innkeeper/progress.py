"""Progress of long work, on standard error only: standard output belongs to the container.

A terminal gets one live line a step (rich); anything else gets plain lines at start and end.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_depth = 0
_quiet = False


def be_quiet(quiet: bool = True) -> None:
    """Print no progress at all from here on (`--quiet`); errors are not progress."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Return whether `be_quiet` is in force, for a process that starts another one with the same setting."""
    return _quiet


def printable(text: str) -> str:
    """Return `text` with all but what can be seen, and line ends and tabs, written out: names in an image are not to steer the terminal."""
    return "".join([char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text])


def note(text: str) -> None:
    """Print one line of information."""
    if not _quiet:
        print(f"{'  ' * _depth}{printable(text)}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print one line that the user should read, even with `--quiet`."""
    print(f"innkeeper: warning: {printable(text)}", file=sys.stderr, flush=True)


class Step:
    """A step that is running; `update` replaces what is shown behind its title on a terminal."""

    def __init__(self, title: str) -> None:
        self.title = printable(title)
        self._show = None
        if sys.stderr.isatty() and not _quiet and _depth == 0:
            from rich.console import Console
            from rich.markup import escape

            self._show = Console(stderr=True).status(escape(self.title))
            self._show.start()
        else:
            note(f"{title} ...")

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
    """Show that `title` is being done, and how long it took; nested steps are indented."""
    global _depth
    shown = Step(title)
    start = time.monotonic()
    _depth += 1
    failed = True
    try:
        yield shown
        failed = False
    finally:
        _depth -= 1
        shown._stop()
        note(f"{title}: {'failed after' if failed else 'done in'} {time.monotonic() - start:.1f} s")
