"""The command `exec`: run another process in a container."""

from typing import Any

from innkeeper.cli import flags


def exec_(name: str, command: list[str], **given: Any) -> int:
    """Run a command in a running container. The exit status is the command's."""
    from innkeeper.engine import exec_ as execution

    return execution.run(name, execution.ExecRequest(command=command, **given))


COMMAND = flags.Command(
    name="exec",
    run=exec_,
    arguments=(flags.container(), flags.words("command", "COMMAND [ARG...]")),
    flags=(*flags.STREAMS, flags.switch("detach", "-d", "--detach", help="Do not wait for it."), *flags.ENVIRONMENT, *flags.PROCESS),
    refused=(
        flags.Refused(
            "--privileged",
            "a process gets no more privileges than its container has",
            "start the container with what it needs: --cap-add CAP, --security-opt OPT",
        ),
    ),
    examples=("exec -it web sh", "exec -u www-data -w /tmp web id", "echo hello | exec -i web cat"),
    interspersed=False,
)
