"""What the guests of a test wrote to their consoles, for the report of its failure.

The folder of a VM goes with the VM, mostly before a failure is reported. So a thread opens each console when it
appears, and what it holds open can be read afterwards.
"""

import glob
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from innkeeper.paths import vms_root
from innkeeper.vm import console

LINES = 100
EVERY = 0.1
MARKERS = ("vm", "interop")
NODES = ("/run/ink-*/vsock/*.console", "/run/ink-*/containerd.log")
"""Written by the nodes of tests/interop: a guest's console, and what containerd and the shim log."""


class GuestConsoles:
    """The consoles that are there or appear between `start` and `stop`, held open."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._since = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Forget consoles of guests that have gone, and watch for new ones."""
        for path in self._descriptors.keys() - self._found():
            os.close(self._descriptors.pop(path))
        self._since = time.time()
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def tails(self) -> list[tuple[str, str]]:
        """Return the path and the last lines of each console. Those of a node stay after the guest: if they have changed."""
        tails = []
        for path, fd in sorted(self._descriptors.items()):
            if path.startswith(str(vms_root())) or os.fstat(fd).st_mtime >= self._since:
                tails.append((path, "\n".join(console.tail(Path(f"/proc/self/fd/{fd}"), LINES))))
        return tails

    def _found(self) -> set[str]:
        return {path for pattern in (f"{vms_root()}/*/console.log", *NODES) for path in glob.glob(pattern)}

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            for path in self._found() - self._descriptors.keys():
                try:
                    self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue


CONSOLES = GuestConsoles()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not any(item.get_closest_marker(marker) for marker in MARKERS):
        return (yield)
    CONSOLES.start()
    try:
        return (yield)
    finally:
        CONSOLES.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and any(item.get_closest_marker(marker) for marker in MARKERS):
        report.sections.extend((f"end of {path}", text) for path, text in CONSOLES.tails())
    return report
