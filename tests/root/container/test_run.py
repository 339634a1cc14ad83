"""Programs in real containers: what they see, how they end, how they are fed."""

import signal
from typing import Any

import pytest

from agent import loop
from agent.container.container import Container
from agent.container.lifecycle import Status
from agent.container.spec.document import parse_process
from agent.errors import AlreadyExists, NotFound, StepFailed, WrongState
from tests.root.container_helpers import PATH, Box, execute, finish

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


def test_prints_and_exits(box: Box) -> None:
    result = box.sh("echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.status) == ("out\n", "err\n", 7)


def test_is_pid_1_alone_in_its_namespace(box: Box) -> None:
    assert box.sh("echo $$; ls /proc | grep '^[0-9]' | sort | head -2").stdout.split()[:2] == ["1", "1"]
    assert len(box.sh("ps -o pid,args").stdout.splitlines()) == 2  # the header, and ps, which the shell has become


def test_a_signal_gives_128_and_its_number(box: Box) -> None:
    async def use(container: Container) -> int:
        container.init.signal(signal.SIGKILL)
        return await container.init.wait()

    assert box.during(box.document("sleep", "100"), use) == 137


def test_terminate_reaches_a_handler(box: Box) -> None:
    doc = box.document("sh", "-c", "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done")

    async def use(container: Container) -> tuple[bytes, bytes, int]:
        ready = await container.init.stdio.read_stdout(100)
        container.init.signal(signal.SIGTERM)
        return ready, await container.init.stdio.read_stdout(100), await container.init.wait()

    assert box.during(doc, use) == (b"ready\n", b"got it\n", 3)


def test_standard_input_to_its_end(box: Box) -> None:
    assert box.run(box.document("wc", "-c"), stdin=b"x" * 3_000_000).stdout.strip() == "3000000"


def test_writing_to_a_program_that_reads_no_more_is_an_error(box: Box) -> None:
    async def use(container: Container) -> None:
        await container.init.wait()
        with pytest.raises(WrongState, match="EPIPE"):
            await container.init.stdio.write_stdin(b"x")

    box.during(box.document("true"), use)


def test_a_grandchild_that_keeps_the_pipe_does_not_keep_the_reader(box: Box) -> None:
    doc = box.document("sleep", "100")

    async def use(container: Container) -> Any:
        with loop.timeout(20):
            return await execute(container, "sh", "-c", "sleep 50 & echo done")

    result = box.during(doc, use)
    assert (result.stdout, result.status) == ("done\n", 0)


def test_a_missing_program_fails_create(box: Box) -> None:
    with pytest.raises(StepFailed, match="nosuch: not found") as caught:
        box.run(box.document("nosuch"))
    assert caught.value.errno == 2
    with pytest.raises(StepFailed, match="/bin/nosuch: not found"):
        box.run(box.document("/bin/nosuch"))


def test_a_file_that_is_no_program_fails_create(box: Box) -> None:
    with pytest.raises(StepFailed, match="/etc/passwd") as caught:
        box.run(box.document("/etc/passwd"))
    assert caught.value.errno == 13
    with pytest.raises(StepFailed, match="is a directory"):
        box.run(box.document("/etc"))


def test_environment_is_exactly_the_specs(box: Box) -> None:
    doc = box.document("env")
    doc["process"]["env"] = [PATH, "A=1", "B=x=y", "A=2"]
    assert sorted(box.run(doc).stdout.splitlines()) == sorted([PATH, "A=2", "B=x=y", "HOME=/root"])


def test_home_comes_from_the_containers_passwd(box: Box) -> None:
    doc = box.document("sh", "-c", "echo $HOME")
    doc["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert box.run(doc).stdout == "/home/app\n"
    doc["process"]["user"]["uid"] = 4242
    assert box.run(doc).stdout == "/\n"


def test_user_groups_and_umask(box: Box) -> None:
    doc = box.document("sh", "-c", "id -u; id -g; id -G; umask")
    doc["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o27}
    assert box.run(doc).stdout.split("\n")[:4] == ["1000", "1001", "1001 5 7", "0027"]


def test_working_directory_is_made_and_entered(box: Box) -> None:
    doc = box.document("pwd")
    doc["mounts"].append({"destination": "/work", "type": "tmpfs", "source": "tmpfs"})
    doc["process"]["cwd"] = "/made/deep/down"
    assert box.run(doc).stdout == "/made/deep/down\n"


def test_working_directory_that_only_the_user_may_enter(box: Box) -> None:
    doc = box.document("pwd")
    doc["mounts"].append({"destination": "/w", "type": "tmpfs", "source": "t", "options": ["mode=700", "uid=1000", "gid=1000"]})
    doc["process"]["user"] = {"uid": 1000, "gid": 1000}
    doc["process"]["capabilities"] = {}
    doc["process"]["cwd"] = "/w"
    assert box.run(doc).stdout == "/w\n"


def test_hostname_and_domainname(box: Box) -> None:
    doc = box.document("sh", "-c", "hostname; cat /proc/sys/kernel/domainname")
    doc["hostname"], doc["domainname"] = "inn", "keep.example"
    assert box.run(doc).stdout.split() == ["inn", "keep.example"]


def test_lifecycle(box: Box) -> None:
    async def main() -> None:
        container = await box.create(box.document("sleep", "100"))
        seen = [container.status]
        with pytest.raises(WrongState, match="created: cannot pause"):
            await container.pause()
        await container.start()
        seen.append(container.status)
        with pytest.raises(WrongState, match="running: cannot start"):
            await container.start()
        container.signal_all(signal.SIGKILL)
        assert await container.init.wait() == 137
        assert [*seen, container.status] == [Status.CREATED, Status.RUNNING, Status.STOPPED]
        with pytest.raises(WrongState, match="stopped: cannot exec"):
            await execute(container, "true")
        with pytest.raises(WrongState, match="has ended"):
            container.init.signal(signal.SIGTERM)
        await container.remove()

    loop.run(main())


def test_a_created_container_can_be_removed(box: Box) -> None:
    async def main() -> None:
        container = await box.create(box.document("sleep", "100"))
        await container.remove()

    loop.run(main())


def test_pause_stops_it_and_resume_lets_it_go_on(box: Box) -> None:
    doc = box.document("sh", "-c", "while read line; do echo $line; done")

    async def use(container: Container) -> None:
        await container.pause()
        assert container.status is Status.PAUSED
        await container.init.stdio.write_stdin(b"one\n")
        with pytest.raises(TimeoutError):
            with loop.timeout(0.3):
                await container.init.stdio.read_stdout(10)
        with pytest.raises(WrongState, match="paused: cannot exec"):
            await execute(container, "true")
        await container.resume()
        assert await container.init.stdio.read_stdout(10) == b"one\n"

    box.during(doc, use)


def test_exec_joins_the_container(box: Box) -> None:
    async def use(container: Container) -> None:
        result = await execute(container, "sh", "-c", "hostname; ps -o args | grep -cx 'sleep 100'; readlink /proc/self/ns/net; exit 4")
        host, count, net = result.stdout.split()
        assert (host, count, result.status) == ("box", "1", 4)
        inside = await execute(container, "readlink", "/proc/1/ns/net", exec_id="e2")
        assert inside.stdout.strip() == net
        assert len(container.pids()) == 1
        with pytest.raises(AlreadyExists):
            await container.exec("e2", parse_process({"args": ["true"], "env": [PATH], "cwd": "/"}))
        with pytest.raises(NotFound, match="not found"):
            container.process("e3")

    box.during(box.document("sleep", "100"), use)


def test_exec_of_a_missing_program_leaves_no_process(box: Box) -> None:
    async def use(container: Container) -> None:
        with pytest.raises(StepFailed, match="nosuch: not found"):
            await execute(container, "nosuch")
        assert list(container.processes) == ["box"]
        assert len(container.pids()) == 1

    box.during(box.document("sleep", "100"), use)


def test_exec_of_many_at_once(box: Box) -> None:
    async def use(container: Container) -> None:
        tasks = [loop.spawn(execute(container, "echo", str(n), exec_id=f"e{n}"), name=f"e{n}") for n in range(12)]
        assert [(await task.wait()).stdout for task in tasks] == [f"{n}\n" for n in range(12)]

    box.during(box.document("sleep", "100"), use)


def test_removing_ends_what_runs(box: Box) -> None:
    async def use(container: Container) -> None:
        process = await container.exec("e1", parse_process({"args": ["sleep", "100"], "env": [PATH], "cwd": "/"}))
        assert process.exit_status is None

    box.during(box.document("sh", "-c", "sleep 99 & sleep 98 & wait"), use)


def test_terminal(box: Box) -> None:
    doc = box.document("sh", "-c", "tty; stty size; echo $TERM; read line; echo got $line; read -s x; exit 5")
    doc["process"]["terminal"] = True
    doc["process"]["consoleSize"] = {"height": 33, "width": 77}

    async def use(container: Container) -> Any:
        seen = b""
        while b"xterm" not in seen:
            seen += await container.init.stdio.read_stdout(1000)
        container.init.stdio.resize(10, 20)
        await container.init.stdio.write_stdin(b"word\n\n")
        result = await finish(container.init)
        return seen.decode() + result.stdout, result.status

    text, status = box.during(doc, use)
    lines = text.replace("\r", "").split("\n")
    assert lines[:3] == ["/dev/console", "33 77", "xterm"] or lines[:3] == ["/dev/pts/0", "33 77", "xterm"]
    assert "got word" in lines
    assert status == 5


def test_terminal_of_an_executed_program(box: Box) -> None:
    async def use(container: Container) -> Any:
        process = await container.exec(
            "e1", parse_process({"args": ["sh", "-c", "stty size; test -t 0 && test -t 2 && echo tty"], "env": [PATH], "terminal": True})
        )
        return await finish(process)

    assert "tty" in box.during(box.document("sleep", "100"), use).stdout


def test_control_c_interrupts_the_foreground(box: Box) -> None:
    doc = box.document("sh", "-c", "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done")
    doc["process"]["terminal"] = True

    async def use(container: Container) -> Any:
        await container.init.stdio.read_stdout(100)
        await container.init.stdio.write_stdin(b"\x03")
        return await finish(container.init)

    result = box.during(doc, use)
    assert "interrupted" in result.stdout
    assert result.status == 9
