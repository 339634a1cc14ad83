"""The command `innkeeper-oci`: its options, the dispatch to a subcommand, and its errors."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import VERSION
from agent.errors import AgentError, Refused
from agent.oci import cloned_binary, command_table
from agent.oci.arguments import Option, Parsed, UsageError, parse
from agent.oci.command_table import Command, Context
from agent.oci.output import Log

NAME = "innkeeper-oci"
DEFAULT_ROOT = "/run/innkeeper-oci"
NO_SYSTEMD = "no systemd runs here; cgroups are written directly (the engine's cgroup manager must be cgroupfs)"
PARTS = ("prctl", "_prctl", "pyseccomp")
MISSING = ": it is part of the extra `oci` (pip install 'innkeeper[oci]')"
NOT_BY_SYSTEMD = "cgroups are written directly, not by asking systemd; the engine's cgroup manager must be cgroupfs"

OPTIONS = (
    Option("root", f"folder of the containers' states ({DEFAULT_ROOT})", "DIR"),
    Option("log", "write messages to FILE, errors to standard error as well", "FILE"),
    Option("log-format", "text or json", "FORMAT", choices=("text", "json")),
    Option("log-level", "debug shows more", "LEVEL", choices=("debug", "info", "warning", "error")),
    Option("debug", "as --log-level debug"),
    Option("systemd-cgroup", "let systemd make the cgroups: refused"),
    Option("rootless", "auto or false; true is refused", "WHETHER", choices=("auto", "true", "false")),
    Option("cgroup-manager", "cgroupfs; systemd is refused", "NAME", choices=("cgroupfs", "systemd", "disabled")),
    Option("no-pivot", "do not use pivot_root", refused="a root that is only chroot(2)ed to can be left"),
    Option("criu", "where criu is: not used", "PATH", refused="this runtime cannot save or restore a container's processes"),
    Option("version", "print the version", short="v"),
    Option("help", "print this", short="h"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name). Return the exit status."""
    _open_standard_streams()
    cloned_binary.forget_launcher()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The names of processes may be invalid UTF-8.
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    log = Log()
    command: Command | None = None
    try:
        parsed = parse(words, OPTIONS, interleaved=False)
        log = Log(parsed.text("log"), parsed.text("log-format") == "json", parsed.switch("debug") or parsed.text("log-level") == "debug")
        if parsed.switch("version"):
            return _print_version()
        if parsed.switch("help") or not parsed.arguments or parsed.arguments[0] in ("help", "-h"):
            return _print_help(parsed.arguments[1:])
        context = _context(parsed, log)
        name, *rest = parsed.arguments
        if name in command_table.REFUSED:
            raise Refused(name, command_table.REFUSED[name])
        command = command_table.find(name)
        if "--help" in rest[:1] or "-h" in rest[:1]:
            return _print_help([name])
        parsed = parse(rest, command.options, interleaved=command.interleaved)
        command.check_arguments(parsed)
        if command.contains:
            cloned_binary.require()
        return command.action(context, parsed)
    except (AgentError, OSError) as error:
        log.error(_text(error))
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        log.error(str(error) + MISSING if error.name in PARTS else str(error))
    except Exception as error:  # noqa: BLE001 - the edge of the process: an engine reads one line, not a traceback
        log.error(": ".join(["internal error", type(error).__name__, str(error)]))
        if log.debug:
            sys.excepthook(type(error), error, error.__traceback__)
    return command.failure if command is not None else 1


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


def _open_standard_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed.

    Otherwise the next file opened here would get its number, and would go to the container.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _context(parsed: Parsed, log: Log) -> Context:
    if parsed.switch("systemd-cgroup") or parsed.text("cgroup-manager") == "systemd":
        option = "--systemd-cgroup" if parsed.switch("systemd-cgroup") else "--cgroup-manager"
        raise Refused(option, NOT_BY_SYSTEMD if os.path.isdir("/run/systemd/system") else NO_SYSTEMD)
    if parsed.text("cgroup-manager") == "disabled":
        raise Refused("--cgroup-manager", "a container without a cgroup of its own could not be ended whole")
    if parsed.text("rootless") == "true" or os.geteuid() != 0:
        raise Refused("--rootless", "this runtime needs root")
    root = parsed.text("root") or DEFAULT_ROOT
    return Context(Path(root).absolute(), log, parsed.has("root"))


def _print_version() -> int:
    from agent.container.state import OCI_VERSION

    print(f"{NAME} version {VERSION}\nspec: {OCI_VERSION}")
    return 0


def _print_help(words: Sequence[str]) -> int:
    if words:
        command = command_table.find(words[0])
        print(f"{NAME} [OPTIONS] {command.name} [OPTIONS] {command.arguments}\n\n{command.summary}\n")
        options: Sequence[Option] = command.options
    else:
        print(f"{NAME} [OPTIONS] COMMAND [OPTIONS] ...\n\nAn OCI container runtime.\n")
        for name in command_table.MODULES:
            print(f"  {name:<10} {command_table.find(name).summary}")
        print()
        options = OPTIONS
    for option in options:
        print(f"  {option.usage():<28} {f'refused: {option.refused}' if option.refused else option.help}")
    return 0


__all__ = ["UsageError", "main"]
