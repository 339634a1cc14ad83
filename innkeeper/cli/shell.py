"""The command `shell`: open a shell in the guest itself, outside of its containers."""

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError


def shell(name: str, command: list[str] | None = None) -> int:
    """Open a shell in the guest around CONTAINER.

    The container must have been started with --debug-guest.
    """
    import os

    from innkeeper.engine import attach, guest_agent, records, terminal
    from innkeeper.wire.pb import guest_pb2

    container = records.lookup(name)
    tty = os.isatty(0) and not command
    exec_id = f"shell-{os.urandom(6).hex()}"
    rows, columns = terminal.size() or (0, 0)
    with guest_agent.connected(container) as agent:
        if not container.facts.debug_guest:
            raise InnkeeperError(f"the guest around {container.name} has no shell", hint="start the container with --debug-guest")
        variables = [f"TERM={os.environ.get('TERM', 'xterm')}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"]
        agent.start_shell(
            guest_pb2.StartShellRequest(exec_id=exec_id, args=command or [], env=variables, terminal=tty, rows=rows, columns=columns)
        )
        process = guest_agent.Process(agent, "guest", exec_id)
        process.hold()
        return attach.attach_streams(process, interactive=True, tty=tty)


COMMAND = flags.Command(
    name="shell",
    run=shell,
    arguments=(flags.container(), flags.words("command", "[COMMAND [ARG...]]", required=False)),
    examples=("shell web", "shell web dmesg"),
    interspersed=False,
)
