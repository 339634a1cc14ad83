"""Whatever a container does while it is made or taken down, nothing of it stays and nothing waits for ever. The `box` fixture looks."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container import create
from agent.container import process as process_module
from agent.container.container import Container
from agent.container.init import child
from agent.container.lifecycle import Status
from agent.container.spec.document import parse_process, parse_resources
from agent.errors import AgentError, Refused, StepFailed, WrongState
from tests.root.container_helpers import PATH, Box, Document, execute, failing_at, whole_life, with_users

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


def everything(box: Box, source: Path) -> Document:
    """A document in which every step has something to do."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 0"]}
    doc = box.document("true")
    doc["hooks"] = {kind: [hook] for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")}
    doc["mounts"] += [
        {"destination": "/d", "type": "bind", "source": str(source), "options": ["rbind", "idmap"]},
        {"destination": "/home", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]},
    ]
    doc["mounts"][6]["options"] = ["rw"]
    linux = doc["linux"]
    linux["namespaces"].append({"type": "time"})
    linux["timeOffsets"] = {"boottime": {"secs": 5}}
    linux["cgroupsPath"] = "/deep/er/group"
    linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}
    return with_users(doc)


@pytest.mark.needs("module:pyseccomp")
@pytest.mark.parametrize("step", [name for name, _, _ in (*create.STEPS, *child.INIT_STEPS)])
def test_a_failure_at_any_step_of_either_leaves_nothing(mapped: Box, tmp_path: Path, step: str) -> None:
    with pytest.raises(StepFailed, match="failure injected") as caught:
        loop.run(whole_life(mapped, everything(mapped, tmp_path), step))
    assert caught.value.step == step


@pytest.mark.needs("module:pyseccomp")
def test_without_a_failure_that_document_runs(mapped: Box, tmp_path: Path) -> None:
    loop.run(whole_life(mapped, everything(mapped, tmp_path)))


@pytest.mark.parametrize("step", [name for name, _, _ in child.EXEC_STEPS])
def test_a_failure_at_any_step_of_exec_leaves_nothing(box: Box, step: str) -> None:
    async def main() -> None:
        container = await box.create(box.document("sleep", "100"))
        try:
            await container.start()
            with failing_at(step), pytest.raises(StepFailed, match="failure injected"):
                await execute(container, "true")
            assert (list(container.processes), len(container.pids())) == (["box"], 1)
        finally:
            await container.remove()

    loop.run(main())


@pytest.mark.parametrize("step", [name for name, _, _ in create.STEPS])
def test_a_failure_while_a_user_namespace_is_joined_leaves_nothing(mapped: Box, tmp_path: Path, step: str) -> None:
    async def main() -> None:
        first = await mapped.create(everything(mapped, tmp_path) | {"hooks": {}})
        try:
            doc = mapped.document("true")
            doc["linux"]["namespaces"].append({"type": "user", "path": f"/proc/{first.init.pid}/ns/user"})
            with pytest.raises(StepFailed, match="failure injected"):
                await whole_life(Box(mapped.root, mapped.host, "box2"), doc, step)
        finally:
            await first.remove()

    loop.run(main())


def with_hook(doc: Document, kind: str, script: str, **fields: Any) -> Document:
    doc["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script], **fields}]}
    return doc


def test_a_child_that_stops_in_set_up_is_given_up(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook is outside, so its signal reaches the container's first process."""
    monkeypatch.setattr(process_module, "SETUP_SECONDS", 0.3)
    script = 'read -r state; pid=${state##*\\"pid\\": }; kill -STOP ${pid%%,*}'
    with pytest.raises(StepFailed, match=r"the child is not done within 0.3 s"):
        box.run(with_hook(box.document("true"), "createRuntime", script))


def test_a_child_that_is_killed_in_set_up_is_reported(box: Box) -> None:
    script = 'read -r state; pid=${state##*\\"pid\\": }; kill -KILL ${pid%%,*}'
    with pytest.raises(StepFailed, match=r"the child ended in set-up \(status 137\)"):
        box.run(with_hook(box.document("true"), "createRuntime", script))


def test_a_child_that_waits_for_a_hook_without_a_limit_can_be_cancelled(box: Box) -> None:
    doc = with_hook(box.document("true"), "createContainer", "/bin/sleep 76543")

    async def main() -> None:
        creating = loop.spawn(box.create(doc), name="create")
        await loop.sleep(0.3)
        creating.cancel()
        with pytest.raises(loop.TaskCancelled):
            await creating.wait()

    loop.run(main())


def test_removing_ends_a_start_that_hangs(box: Box) -> None:
    doc = with_hook(box.document("true"), "startContainer", "sleep 65432")

    async def main() -> None:
        container = await box.create(doc)
        starting = loop.spawn(container.start(), name="start")
        await loop.sleep(0.2)
        assert container.status is Status.CREATED
        await container.remove()
        with pytest.raises(StepFailed):
            await starting.wait()

    loop.run(main())


def test_removing_outruns_who_forks_for_ever(box: Box) -> None:
    """Thirty shells, each of which starts the next one and ends. Process 1 waits for one child, and so reaps all."""
    another = 'sh -c "$0" "$0" &'
    doc = box.document("sh", "-c", f"for number in $(seq 30); do {another} done; sleep 1000; :", another)
    doc["process"]["user"] = {"uid": 54321, "gid": 54321}
    doc["process"]["rlimits"] = [{"type": "RLIMIT_NPROC", "soft": 500, "hard": 500}]

    async def use(container: Container) -> None:
        with loop.timeout(20):
            while len(container.pids()) < 20:
                await loop.sleep(0.01)

    box.during(doc, use)
    assert not subprocess.run(["ps", "-U", "54321"], check=False, capture_output=True).stdout.splitlines()[1:]


def test_of_calls_at_once_each_sees_the_one_before(box: Box) -> None:
    async def main() -> list[str]:
        container = await box.create(box.document("sleep", "100"))

        async def attempt(name: str, call: Any) -> str:
            try:
                await call
            except AgentError as error:
                return f"{name}: {type(error).__name__}"
            return name

        process = parse_process({"args": ["true"], "env": [PATH]})
        tasks = [
            loop.spawn(attempt("start", container.start()), name="a"),
            loop.spawn(attempt("start", container.start()), name="b"),
            loop.spawn(attempt("pause", container.pause()), name="c"),
            loop.spawn(attempt("exec", container.exec("e1", process)), name="d"),
            loop.spawn(attempt("update", container.update(parse_resources({}))), name="e"),
            loop.spawn(attempt("resume", container.resume()), name="f"),
            loop.spawn(attempt("delete", container.delete()), name="g"),
        ]
        outcomes = [await task.wait() for task in tasks]
        await loop.gather(container.remove(), container.remove())
        with pytest.raises(WrongState):
            container.signal_all(signal.SIGTERM)
        return outcomes

    # What each found tells their order. Who hears of it first does not: starts and updates end in tasks of their own.
    expected = ["start", "start: WrongState", "pause", "exec: WrongState", "update", "resume", "delete: WrongState"]
    assert loop.run(main()) == expected


def test_delete_is_for_containers_that_have_ended(box: Box) -> None:
    async def main() -> None:
        container = await box.create(box.document("true"))
        with pytest.raises(WrongState, match="created: cannot delete"):
            await container.delete()
        await container.start()
        await container.init.wait()
        await container.delete()

    loop.run(main())


def test_two_containers_of_one_group_are_told_apart(box: Box) -> None:
    """The second is refused, and the first goes on."""
    doc = box.document("sleep", "100")
    doc["linux"]["cgroupsPath"] = "/same"

    async def use(container: Container) -> None:
        with pytest.raises(WrongState, match="has processes already"):
            await Box(box.root, box.host, "box2").create(doc)
        assert container.status is Status.RUNNING

    box.during(doc, use)


def test_a_refusal_comes_before_anything_is_made(box: Box) -> None:
    doc = box.document("true")
    doc["linux"]["namespaces"][4] = {"type": "network", "path": "/no/such/namespace"}
    before = set(os.listdir(box.host.cgroup_root))
    with pytest.raises(Refused):
        box.run(doc)
    assert set(os.listdir(box.host.cgroup_root)) == before
