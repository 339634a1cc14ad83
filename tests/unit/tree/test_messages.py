"""What users read when something fails: the checked-in list is the code's, and each message keeps to docs/style.md."""

import re

import pytest

from innkeeper.cli.app import COMMANDS
from tests.unit.tree.messages import ARROW, HEAD, LIST, lines

COLUMNS = 120
PROPER_NAMES = ("QEMU", "Kata")
CRABBED = re.compile(
    r"\b(is told|tells?|says?|said|whoever|one that|has it not|for want of|of ours|of the guest's|of the host's|the least is|"
    r"the most is|even by)\b"
)
"""Words and turns that nobody would type into a search box."""


def test_the_list_is_current() -> None:
    written = HEAD + "".join(f"{line}\n" for line in lines())
    assert LIST.read_text() == written, "a message has changed: run `python -m tests.unit.tree.messages` and read it once more in the list"


def test_a_command_in_a_hint_can_be_typed() -> None:
    """That is, with the program's name in front."""
    bare = re.compile(rf"(?:^|: |`)(?:{'|'.join(COMMANDS)})(?:$|`| -| \{{| rm | lists )")
    assert bare.search("remove it first: snapshots rm {tag}") and bare.search("ps -a lists them") and bare.search("rm {name}")
    assert [line for line in lines() if bare.search(line.partition(ARROW)[2])] == []


@pytest.mark.parametrize("line", lines())
def test_message(line: str) -> None:
    message, _, hint = line.partition(ARROW)
    assert message[0].islower() or message[0] in "-{" or message.startswith(PROPER_NAMES), "lower case, or a flag, file or image first"
    for part in (message, hint):
        assert not part.endswith((".", "!")), "no final period"
        assert len(part) <= COLUMNS
        assert not CRABBED.search(part)
