"""What every run does: it leaves out what the host lacks (`tests/needs.py`), and helps to find out why a test fails or is slow."""

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.guest_consoles import pytest_runtest_makereport as pytest_runtest_makereport
from tests.guest_consoles import pytest_runtest_protocol as pytest_runtest_protocol
from tests.needs import NOT_IN_CI, OF_MARKER, in_ci, why_missing

FEW_TESTS = 20
"""In a run of no more than these the terminal says which set-ups took long: whoever works at a test waits for them each time."""
LONG_SET_UP = 1.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run tests that take minutes")
    parser.addoption("--start", choices=("cold", "template"), default="cold", help="how `run` starts its VM where a test does not say")


def _forget_ignored_signals() -> None:
    """Let our children have the usual dispositions, though a shell's background or nohup(1) has us ignore some.

    A handler, in place of SIG_IGN, is reset by execve(2); here the signal is still without effect.
    """
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, lambda _signum, _frame: None)


def pytest_configure(config: pytest.Config) -> None:
    _forget_ignored_signals()
    # Otherwise each first run would start to make a template, beside whatever is tested next.
    os.environ["INNKEEPER_VM_START"] = config.getoption("--start")


def pytest_collection_finish() -> None:
    """Leave what there is now out of later garbage collections.

    Thousands of tests and all that they import made each take half a second, and many compare open descriptors
    (tests/descriptors.py) some hundred times.
    """
    gc.collect()
    gc.freeze()


def _parts(item: pytest.Item) -> Iterator[str]:
    for marker, parts in OF_MARKER.items():
        if item.get_closest_marker(marker):
            yield from parts
    for mark in item.iter_markers("needs"):
        yield from mark.args


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("takes minutes: only with --long")
    for part in dict.fromkeys(_parts(item)):
        reason = why_missing(part)
        if reason is None:
            continue
        if part in NOT_IN_CI:
            pytest.skip(f"{reason}; with CI=true too: {NOT_IN_CI[part]}")
        if in_ci():
            pytest.fail(f"left out although CI=true: {reason}", pytrace=False)
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _name_long_set_ups(terminalreporter)
    _name_what_was_left_out(terminalreporter)


def _name_long_set_ups(terminalreporter: pytest.TerminalReporter) -> None:
    """Name tests whose fixtures took long, with the seconds, if few tests ran."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports if getattr(report, "when", "") == "setup"]
    if len(reports) > FEW_TESTS:
        return
    for report in reports:
        if report.duration >= LONG_SET_UP:
            terminalreporter.line(f"set-up took {report.duration:.1f} s: {report.nodeid}")


def _name_what_was_left_out(terminalreporter: pytest.TerminalReporter) -> None:
    """Name all that was left out, for whatever reason: tests also skip themselves for what they find."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple))
    terminalreporter.section("left out on this host")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4d} test(s): {reason}")
    if not reasons:
        terminalreporter.line("   nothing")
