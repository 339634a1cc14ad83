"""The command `completion`: print a shell's completion of our commands and flags."""

from innkeeper.cli import flags

SHELLS = ("bash", "zsh", "fish")

_BASH = """# completion of {program} for bash{zsh}
_{name}() {{
    local words
    case "${{COMP_WORDS[*]:1:COMP_CWORD-1}} " in
{cases}
        *) words="{top}" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _{name} {program}"""


def completion(shell: str) -> None:
    """Print the completion of commands and flags for a shell: bash, zsh or fish."""
    from innkeeper.cli import app
    from innkeeper.errors import InnkeeperError

    if shell not in SHELLS:
        raise InnkeeperError(f"completion {shell}: choose one of {', '.join(SHELLS)}")
    known: dict[str, list[str]] = {}
    for one in app.all_commands():
        names = [name for flag in one.flags for name in flag.names if len(name) > 2]
        known[one.name] = [*(sub.name for sub in getattr(one, "commands", ())), *names, "--help"]
    top = [*known, *(name for flag in app.TOP.flags for name in flag.names if len(name) > 2), "--help"]
    print(_fish(known, top) if shell == "fish" else _bash(known, top, shell))


def _bash(known: dict[str, list[str]], top: list[str], shell: str) -> str:
    """Return the script for bash, or for zsh, which reads bash's."""
    cases = "\n".join(f'        {name}\\ *) words="{" ".join(names)}" ;;' for name, names in known.items())
    load = "\nautoload -U +X bashcompinit && bashcompinit" if shell == "zsh" else ""
    return _BASH.format(program="innkeeper", name="innkeeper", cases=cases, top=" ".join(top), zsh=load)


def _fish(known: dict[str, list[str]], top: list[str]) -> str:
    lines = [f"complete -c innkeeper -n __fish_use_subcommand -a {name}" for name in known]
    lines += [f"complete -c innkeeper -n __fish_use_subcommand -l {name[2:]}" for name in top if name.startswith("--")]
    for command, names in known.items():
        seen = f"'__fish_seen_subcommand_from {command}'"
        lines += [f"complete -c innkeeper -n {seen} {'-l ' + n[2:] if n.startswith('--') else '-a ' + n}" for n in names]
    return "\n".join(lines)


COMMAND = flags.Command(
    name="completion",
    run=completion,
    arguments=(flags.Argument(field="shell", metavar="SHELL", help="bash, zsh or fish."),),
    examples=("source <(innkeeper completion bash)", "innkeeper completion fish | source"),
)
