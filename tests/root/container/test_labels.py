"""Labels of mandatory access control on this host's kernel: what it does not know is refused by name before anything is made."""

from collections.abc import Callable

import pytest

from agent.container.container import Container
from agent.errors import Refused
from tests.needs import needs
from tests.root.container_helpers import Box, Document, execute

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox")]


def ask_profile(document: Document) -> None:
    document["process"]["apparmorProfile"] = "no-such-profile"


def ask_context(document: Document) -> None:
    document["process"]["selinuxLabel"] = "no such context"


def ask_mount_label(document: Document) -> None:
    document["linux"]["mountLabel"] = "no such context"


@pytest.mark.parametrize(
    ("ask", "field"),
    [(ask_profile, "process.apparmorProfile"), (ask_context, "process.selinuxLabel"), (ask_mount_label, "linux.mountLabel")],
)
def test_an_unknown_label_is_refused_by_name(box: Box, ask: Callable[[Document], None], field: str) -> None:
    document = box.document("true")
    ask(document)
    with pytest.raises(Refused) as refused:
        box.run(document)
    assert refused.value.field == field


def test_unconfined_is_what_a_kernel_without_apparmor_has(box: Box) -> None:
    document = box.document("true")
    document["process"]["apparmorProfile"] = "unconfined"
    assert box.run(document).status == 0


def test_an_executed_process_is_refused_like_the_first(box: Box) -> None:
    async def use(container: Container) -> None:
        with pytest.raises(Refused, match=r"process\.apparmorProfile"):
            await execute(container, "true", apparmorProfile="no-such-profile")
        assert (await execute(container, "true", exec_id="e2", apparmorProfile="unconfined")).status == 0

    box.during(box.document("sleep", "100"), use)
