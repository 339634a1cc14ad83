"""docs/kata-contract.md against the code and the tree: every row is true and has a test, and nothing is without a row."""

import ast
from functools import cache
from typing import NamedTuple

import pytest

from agent import config
from agent.pod import devices
from agent.service import methods
from agent.storage import manager
from innkeeper.wire.pb import agent_pb2
from tests.paths import ROOT

SERVED, REFUSED, NO_EFFECT = "served", "refused", "no effect"
HEALTH = ("Check", "Version")


class Row(NamedTuple):
    """One line of a table."""

    name: str
    state: str
    test: str


def rows(heading: str) -> list[Row]:
    """The table below a heading."""
    section = (ROOT / "docs/kata-contract.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip().strip("`") for cell in line.split("|")[1:4]] for line in section.splitlines() if line.startswith("| `")]
    return [Row(*cell) for cell in cells]


def states(heading: str) -> dict[str, str]:
    found = rows(heading)
    assert len({row.name for row in found}) == len(found), "a row is there twice"
    return {row.name: row.state for row in found}


def test_calls() -> None:
    late = {method for names in methods.LATE.values() for method in names}
    expected = dict.fromkeys((*agent_pb2.SERVICES["grpc.AgentService"], *HEALTH), "missing")
    expected |= dict.fromkeys((*methods.AGENT_SERVICE, *late, *HEALTH), SERVED) | dict.fromkeys(methods.ABSENT, REFUSED)
    assert states("Calls") == expected


def test_requests_without_fields() -> None:
    """The page says so of these three."""
    for message in (agent_pb2.RemoveStaleVirtiofsShareMountsRequest, agent_pb2.GetOOMEventRequest, agent_pb2.GetMetricsRequest):
        assert f"`{message.DESCRIPTOR.name}`" in (ROOT / "docs/kata-contract.md").read_text()
        assert [field.name for field in message.DESCRIPTOR.fields] == []


def test_storage_drivers() -> None:
    assert states("Storage drivers") == dict.fromkeys(manager.DRIVERS, SERVED) | dict.fromkeys(manager.ABSENT, REFUSED)


def test_devices() -> None:
    assert states("Devices") == dict.fromkeys(devices.TYPES, SERVED) | dict.fromkeys(devices.ABSENT, REFUSED)


def test_boot_parameters() -> None:
    expected = dict.fromkeys([option.word for option in config.OPTIONS], SERVED) | {config.FILE_WORD: SERVED}
    expected |= dict.fromkeys([*config.WITHOUT_EFFECT, f"{config.PREFIX_OF_MEM_AGENT}*"], NO_EFFECT)
    assert states("Boot parameters") == expected


@pytest.mark.parametrize("heading", ["Calls", "Storage drivers", "Devices", "Boot parameters", "Roots"])
def test_every_row_has_a_test(heading: str) -> None:
    missing = [row for row in rows(heading) if row.test.partition("::")[2] not in functions_of(row.test.partition("::")[0])]
    assert missing == []


@cache
def functions_of(path: str) -> frozenset[str]:
    """Functions of a file of tests."""
    return frozenset(node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef))
