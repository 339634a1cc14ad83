"""Labels of mandatory access control: by which module, which are taken, what stands for the runtime's default, what is refused."""

from typing import Any

import pytest

from agent.container.init.prepare import inherit_from_init, process_plan
from agent.container.spec import labels
from agent.container.spec.document import parse_process
from agent.errors import Refused
from agent.linux import lsm
from tests.unit.container.documents import parsed

CONTEXT = "system_u:system_r:container_t:s0:c1,c2"


@pytest.fixture
def apparmor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with AppArmor and two profiles."""
    monkeypatch.setattr(lsm, "apparmor_active", lambda: True)
    monkeypatch.setattr(lsm, "apparmor_profiles", lambda: frozenset(("innkeeper-default", "mine")))
    monkeypatch.setattr(lsm, "apparmor_exec_attribute", lambda: "self/attr/apparmor/exec")
    monkeypatch.setattr(lsm, "selinux_active", lambda: False)


@pytest.fixture
def selinux(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with SELinux, whose policy knows what begins with system_u."""
    monkeypatch.setattr(lsm, "apparmor_active", lambda: False)
    monkeypatch.setattr(lsm, "selinux_active", lambda: True)
    monkeypatch.setattr(lsm, "selinux_context_valid", lambda context: context.startswith("system_u:"))


@pytest.fixture
def neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without both."""
    monkeypatch.setattr(lsm, "apparmor_active", lambda: False)
    monkeypatch.setattr(lsm, "selinux_active", lambda: False)


def writes(**process: Any) -> list[tuple[str, bytes]]:
    return process_plan(parse_process({"args": ["t"], **process}), -1, None).labels


@pytest.mark.usefixtures("apparmor")
@pytest.mark.parametrize(
    ("asked", "profile"),
    [
        ("mine", "mine"),
        ("innkeeper-default", "innkeeper-default"),
        ("runtime/default", "innkeeper-default"),
        ("docker-default", "innkeeper-default"),
        ("nerdctl-default", "innkeeper-default"),
        ("cri-containerd.apparmor.d", "innkeeper-default"),
        ("containers-default-0.62.2", "innkeeper-default"),
    ],
)
def test_a_loaded_profile_and_names_of_the_runtimes_default(asked: str, profile: str) -> None:
    assert writes(apparmorProfile=asked) == [("self/attr/apparmor/exec", b"exec " + profile.encode())]


@pytest.mark.usefixtures("apparmor")
def test_a_default_that_the_engine_has_loaded_itself_is_taken_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "apparmor_profiles", lambda: frozenset(("docker-default",)))
    assert writes(apparmorProfile="docker-default") == [("self/attr/apparmor/exec", b"exec docker-default")]
    with pytest.raises(Refused, match="'innkeeper-default' is not loaded"):
        writes(apparmorProfile="runtime/default")


@pytest.mark.usefixtures("apparmor")
@pytest.mark.parametrize("name", ["other", "localhost/mine", "mine ", "mine\n", "mine//&unconfined", ":ns:mine", "containers-default-x"])
def test_a_profile_that_is_not_loaded_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        writes(apparmorProfile=name)
    assert refused.value.field == "process.apparmorProfile"
    assert refused.value.reason == f"profile {name!r} is not loaded"


@pytest.mark.usefixtures("neither")
@pytest.mark.parametrize("name", ["", "unconfined"])
def test_no_profile_is_asked_of_nobody(name: str) -> None:
    assert writes(apparmorProfile=name) == []


@pytest.mark.usefixtures("neither")
@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("process.apparmorProfile", "docker-default", "AppArmor is not active"),
        ("process.selinuxLabel", CONTEXT, "SELinux is not active"),
        ("linux.mountLabel", CONTEXT, "SELinux is not active"),
    ],
)
def test_labels_without_their_module_are_refused(field: str, value: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        parsed(field, value)
    assert (refused.value.field, refused.value.reason) == (field, reason)


@pytest.mark.usefixtures("selinux")
def test_a_context_of_the_policy_labels_the_program_and_its_keys() -> None:
    plan = process_plan(parse_process({"args": ["t"], "selinuxLabel": CONTEXT}), -1, None)
    assert plan.labels == [("self/attr/exec", CONTEXT.encode())]
    assert plan.key_label == CONTEXT.encode()


@pytest.mark.usefixtures("selinux")
@pytest.mark.parametrize("field", ["process.selinuxLabel", "linux.mountLabel"])
def test_a_context_that_the_policy_lacks_is_refused(field: str) -> None:
    with pytest.raises(Refused) as refused:
        parsed(field, "other_u:r:t:s0")
    assert (refused.value.field, refused.value.reason) == (field, "'other_u:r:t:s0' is no context of the loaded policy")


@pytest.mark.usefixtures("selinux")
def test_mounts_of_the_containers_own_bear_its_label() -> None:
    mounts = [
        {"destination": "/t", "type": "tmpfs", "source": "t", "options": ["size=1m"]},
        {"destination": "/p", "type": "devpts", "source": "p", "options": ['context="u:r:t:s0:c3,c4"']},
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/b", "type": "bind", "source": "/b"},
    ]
    told = [labels.with_context(mount, CONTEXT).data for mount in parsed("mounts", mounts).mounts]
    assert told == [(("size", "1m"), ("context", CONTEXT)), (("context", "u:r:t:s0:c3,c4"),), (), ()]


@pytest.mark.usefixtures("apparmor")
def test_an_executed_process_has_its_containers_profile_unless_it_has_its_own() -> None:
    init = parse_process({"args": ["t"], "apparmorProfile": "mine"})
    for asked, profile in (("", "mine"), ("unconfined", "unconfined"), ("innkeeper-default", "innkeeper-default")):
        executed = inherit_from_init(parse_process({"args": ["t"], "apparmorProfile": asked}), init)
        assert executed.apparmor_profile == profile


@pytest.mark.usefixtures("selinux")
def test_an_executed_process_has_its_containers_context_unless_it_has_its_own() -> None:
    init = parse_process({"args": ["t"], "selinuxLabel": CONTEXT})
    assert inherit_from_init(parse_process({"args": ["t"]}), init).selinux_label == CONTEXT
    assert inherit_from_init(parse_process({"args": ["t"], "selinuxLabel": "system_u:r:t:s0"}), init).selinux_label == "system_u:r:t:s0"
