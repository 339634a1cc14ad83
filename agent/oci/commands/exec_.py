"""`exec`: one more process in a running container."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import loop
from agent.container.lifecycle import Status
from agent.container.process_io import ProcessIO
from agent.container.spec.document import parse_process
from agent.errors import Refused, WrongState
from agent.oci import console, descriptors
from agent.oci.arguments import Option, Parsed, UsageError
from agent.oci.bundle import read_json
from agent.oci.command_table import Command, Context
from agent.oci.foreground import Foreground
from agent.oci.load_container import load_container
from agent.oci.output import write_pid
from agent.oci.state_dir import StateDir

SETS = ("bounding", "effective", "permitted")

OPTIONS = (
    Option("process", "the process as a JSON document of the specification", "FILE", short="p"),
    Option("detach", "do not wait for its end", short="d"),
    Option("tty", "with a terminal", short="t"),
    descriptors.CONSOLE_SOCKET,
    Option("pid-file", "write its number to FILE", "FILE"),
    descriptors.PIDFD_SOCKET,
    descriptors.PRESERVE_FDS,
    Option("cwd", "working directory", "DIR"),
    Option("env", "NAME=VALUE of its environment", "ENTRY", short="e", many=True),
    Option("user", "who runs it", "UID[:GID]", short="u"),
    Option("additional-gids", "one more group", "GID", short="g", many=True),
    Option("cap", "one more capability", "NAME", short="c", many=True),
    Option("no-new-privs", "set no_new_privs"),
    Option("apparmor", "AppArmor profile", "NAME"),
    Option("process-label", "SELinux label", "LABEL"),
    Option("cgroup", "start in a group below the container's; / is its own, and no other if that takes no process", "PATH", many=True),
    Option("ignore-paused", "also in a paused container, where it waits until that is resumed"),
)


def exec_(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status.

    It is that of the process, 128 + n if signal n ended it, or 0 with --detach.
    """

    async def main() -> int:
        with StateDir.open(context.root, parsed.arguments[0]) as state_dir:
            state_dir.lock()
            observed = state_dir.observe()
            if observed.status is Status.STOPPED:
                raise WrongState(f"cannot exec in container {state_dir.id!r}: container not running")
            document = _document(parsed, state_dir)
            process = parse_process(document)
            container = load_container(state_dir, observed)
            cgroup = _cgroup_path(parsed)
            if parsed.switch("ignore-paused") and observed.status is Status.PAUSED:
                # The process continues only when another command has resumed the container, which
                # needs the lock.
                state_dir.unlock()
            fds, environment = descriptors.preserved_fds(parsed)
            process = replace(console.with_terminal_size(process, parsed), env=(*process.env, *environment))
            detached = parsed.switch("detach")
            foreground = None if detached else Foreground()
            io = ProcessIO(descriptors.process_stdio(parsed, process.terminal, detached), fds, detached=detached)
            with descriptors.pidfd_socket(parsed) as send_pidfd:
                # The first process's exec id is the container's id. This one contains a space, so
                # that it is never an id of a container.
                added = await container.exec(f"{state_dir.id} exec", process, io, cgroup, parsed.switch("ignore-paused"))
                state_dir.unlock()
                try:
                    if parsed.has("pid-file"):
                        write_pid(parsed.text("pid-file"), added.pid)
                    send_pidfd(b"setns", added.pidfd)
                except BaseException:
                    await added.kill()
                    raise
            return await foreground.until_end(added) if foreground else 0

    return loop.run(main())


def _document(parsed: Parsed, state_dir: StateDir) -> dict[str, Any]:
    """Return the process: the caller's document, or the container's own with changes.

    The changes are another program and the options. Raises UsageError, Refused.
    """
    if parsed.has("process"):
        if len(parsed.arguments) > 1:
            raise UsageError("exec: takes --process or a command, not both")
        return read_json(Path(parsed.text("process")), "--process")
    if len(parsed.arguments) < 2:
        raise UsageError("exec: needs a command, or --process")
    document = dict(state_dir.load_config().get("process") or {})
    document["args"] = list(parsed.arguments[1:])
    document["terminal"] = parsed.switch("tty")
    document["env"] = [*document.get("env", ()), *parsed.many("env")]
    for option, key in (("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if parsed.has(option):
            document[key] = parsed.text(option)
    if parsed.has("no-new-privs"):
        document["noNewPrivileges"] = parsed.switch("no-new-privs")
    document["user"] = _user(parsed, dict(document.get("user") or {}))
    if parsed.has("cap"):
        sets = document.get("capabilities") or {}
        added = parsed.many("cap")
        document["capabilities"] = {**sets, **{kind: [*sets.get(kind, ()), *added] for kind in SETS}}
        # Add to the ambient set only what is already inheritable, as the kernel requires. Making
        # more inheritable would exceed the request.
        inheritable = sets.get("inheritable") or ()
        ambient = [name for name in added if name in inheritable]
        document["capabilities"]["ambient"] = [*sets.get("ambient", ()), *ambient]
    return document


def _cgroup_path(parsed: Parsed) -> str | None:
    """Return the path of --cgroup, "" for the container's own cgroup, None without the option.

    Raises Refused.
    """
    if not parsed.has("cgroup"):
        return None
    if len(parsed.many("cgroup")) > 1 or ":" in parsed.text("cgroup"):
        raise Refused("--cgroup", "controllers with groups of their own are cgroup v1's; name one path")
    return parsed.text("cgroup").strip("/")


def _user(parsed: Parsed, user: dict[str, Any]) -> dict[str, Any]:
    if parsed.has("user"):
        uid, colon, gid = parsed.text("user").partition(":")
        user["uid"] = _id(uid, "--user")
        if colon:
            user["gid"] = _id(gid, "--user")
    if parsed.has("additional-gids"):
        user["additionalGids"] = [
            *user.get("additionalGids", ()),
            *[_id(gid, "--additional-gids") for gid in parsed.many("additional-gids")],
        ]
    return user


def _id(word: str, option: str) -> int:
    """Return a numeric id. Names are refused: they would be the image's."""
    if not (word.isascii() and word.isdecimal()):
        raise Refused(option, f"{word[:64]!r} is not a number")
    return int(word)


SUMMARY, ARGUMENTS = "run one more process in a container", "ID [COMMAND...]"
COMMANDS = (Command("exec", SUMMARY, exec_, arguments=ARGUMENTS, options=OPTIONS, interleaved=False, failure=255, contains=True),)
