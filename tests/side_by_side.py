"""Run several pytest processes side by side, and report them as one run.

One guest under emulation keeps one processor busy, and tests of one folder share its set-up, so
whole folders, or large parts of one, are what is run in parallel. Each process is an ordinary
pytest: tests of the worker and of user namespaces need a process without threads and children of
the test runner's.
"""

import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import FrameType

AT_ONCE = 2
NOTHING_COLLECTED = 5
"""pytest's exit status when no test was selected."""
LAST_LINES = 5.0
"""Seconds for the rest of the output: a process that a test left behind may hold the pipe open."""

CLEAN_UP = 60.0
"""Seconds for a process that is interrupted: its fixtures end VMs and daemons."""

_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error|xfailed|xpassed|deselected|warning)")


class SideBySide:
    """Pytest processes, at most `AT_ONCE` at a time, whose lines go to standard output."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._results: list[tuple[str, Future[tuple[int, str]]]] = []
        self._running: set[subprocess.Popen[str]] = set()
        self._begun = time.monotonic()

    def start(self, *words: str) -> None:
        """Queue one process, with pytest's paths and options. They are its title in the report."""
        self._results.append((" ".join(words), self._pool.submit(self._run, words)))

    def wait(self) -> None:
        """Return when everything that was queued has ended."""
        for _, result in self._results:
            result.result()

    def finish(self) -> int:
        """Wait, print one line for each process and one for all, and return the exit status."""
        self.wait()
        self._pool.shutdown()
        total: Counter[str] = Counter()
        for title, result in self._results:
            status, last = result.result()
            print(f"{title}: {last.strip('= ') or f'pytest ended with status {status}'}")
            total.update({word.removesuffix("s"): int(number) for number, word in _COUNT.findall(last)})
        counts = ", ".join(f"{number} {word}" for word, number in sorted(total.items()))
        print(f"==== {counts or 'no tests ran'} in {time.monotonic() - self._begun:.0f} s ====")
        return next((status for _, result in self._results if (status := result.result()[0]) not in (0, NOTHING_COLLECTED)), 0)

    def stop(self) -> None:
        """End the processes, and start none of those that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._running):
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + CLEAN_UP
        for process in list(self._running):
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:  # Started where SIGINT is ignored.
                process.kill()
                process.wait()

    def _run(self, words: Sequence[str]) -> tuple[int, str]:
        argv = [sys.executable, "-m", "pytest", *words]
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._running.add(process)
        last = [""]
        reader = threading.Thread(target=_pass_on, args=(process, last), daemon=True)
        reader.start()
        status = process.wait()
        reader.join(LAST_LINES)
        self._running.discard(process)
        return status, last[0]


def _pass_on(process: subprocess.Popen[str], last: list[str]) -> None:
    """Copy lines to standard output, and keep the last one that pytest counts its results in."""
    assert process.stdout is not None
    with suppress(ValueError), process.stdout as lines:
        for line in lines:
            print(line, end="", flush=True)
            if line.startswith("=") and _COUNT.search(line):
                last[0] = line.strip()


def interrupt(_signum: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt: a signal handler by which SIGTERM ends the processes too."""
    raise KeyboardInterrupt
