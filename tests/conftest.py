"""Parts that a host lacks: skipped with the reason, a failure with CI=true, and summed up at the end (see `tests/needs.py`)."""

import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.needs import NOT_IN_CI, OF_MARKER, in_ci, why_missing


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run tests that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    """Have SIGINT act as it does in a terminal. A shell's background and nohup ignore it, and what tests start inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """Name all that was left out, for whatever reason: tests also skip themselves for what they find."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple))
    terminalreporter.section("left out on this host")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4d} test(s): {reason}")
    if not reasons:
        terminalreporter.line("   nothing")
