"""Fixtures of the escape suite: the payload, an agent to attack, and the assertion that after each test nothing is left or changed."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from innkeeper import programs
from tests.escape.canary import tree
from tests.escape.target import Target
from tests.escape.target_guest import Guest
from tests.escape.target_native import Native
from tests.eventually import poll

SOURCES = Path(__file__).resolve().parents[1] / "payload"
SETTLE_SECONDS = 20.0
"""For what ends by itself soon after a test: a last worker, a client's thread. Not a limit that a test measures."""


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attacker's program."""
    program = tmp_path_factory.mktemp("payload") / "payload"
    flags = ["-static", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([programs.require("gcc"), *flags, "-o", program, *sorted(SOURCES.glob("*.c"))], check=True)
    return program


@pytest.fixture(scope="session")
def native(payload: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    """One agent for the whole suite, so that whatever stays behind adds up."""
    target = Native(tmp_path_factory.mktemp("escape"), payload)
    yield target
    target.close()


@pytest.fixture(scope="session")
def guest(payload: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One machine for the whole suite."""
    target = Guest(tmp_path_factory.mktemp("escape-guest"), payload)
    yield target
    target.close()


@pytest.fixture(scope="session", params=["native", pytest.param("guest", marks=pytest.mark.vm)])
def shared_target(request: pytest.FixtureRequest) -> Target:
    """Each in turn. Of the session, so that all tests of one run together."""
    target: Target = request.getfixturevalue(request.param)
    target.settle()
    return target


@pytest.fixture
def target(shared_target: Target) -> Iterator[Target]:
    """The agent under attack, held to what it had before."""
    yield from _unchanged(shared_target)


@pytest.fixture
def here(native: Native) -> Iterator[Native]:
    """The agent on this machine alone: for what would take minutes in an emulated guest, or what a guest has not."""
    native.settle()
    yield from _unchanged(native)


@pytest.fixture
def inside(guest: Guest) -> Iterator[Guest]:
    """The agent of a guest alone: for what this machine's hierarchy or kernel has not."""
    guest.settle()
    yield from _unchanged(guest)


G = TypeVar("G", bound=Target)


def _unchanged(target: G) -> Iterator[G]:
    """Run a test between two looks at the agent, the canary and the kernel's settings. What one test left is not held against the next."""
    before = target.before or (target.holdings(), tree(target.canary))
    target.before = None
    yield target
    assert target.agent.check(SETTLE_SECONDS) == 1
    poll(lambda: not target.holdings() - before[0] and tree(target.canary) == before[1], SETTLE_SECONDS)
    after = (target.holdings(), tree(target.canary))
    assert after[0] - before[0] == Counter(), "stayed behind"
    gone = before[0] - after[0]
    # What others of this machine unmount goes here too. That the canary is whole says the rest.
    assert [holding for holding in gone if not holding.startswith("mount")] == [], "is gone"
    assert after[1] == before[1]
    target.before = after
