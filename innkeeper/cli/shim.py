"""The command `shim`: install our containerd shim on a node, remove it, say what the node lacks."""

from pathlib import Path

from innkeeper.cli import flags, show

PREFIX, ETC, BIN = Path("/opt/innkeeper"), Path("/etc"), Path("/usr/local/bin")
HANDLER = "innkeeper"
OUTPUT = Path("out")


def install(prefix: Path = PREFIX, etc: Path = ETC, bin: Path = BIN, handler: str = HANDLER, guest: str = "") -> None:
    """Install our containerd shim on this node.

    This writes shim, guest, configuration, containerd's handlers, RuntimeClasses and a pod.
    docs/shim.md goes on from there.
    """
    from innkeeper import node
    from innkeeper.guest import installable

    for path in node.install(node.Layout(prefix, etc, bin, handler), installable(guest)):
        print(path)


def uninstall(prefix: Path = PREFIX) -> None:
    """Remove what `install` made, and the templates for it.

    A file that was changed since stays, and is named.
    """
    from innkeeper import node

    for path in node.remove_templates(prefix):
        print(f"{path} is in use and stays")
    for path in node.uninstall(prefix):
        print(f"{path} was changed and stays")


def package(output: Path = OUTPUT) -> None:
    """Make a Debian package of what `install` installs, below /usr and /etc."""
    from innkeeper.guest import build
    from innkeeper.node.package import make

    print(make(build(None), output))


def template(config: Path | None = None, memory: int | None = None, cpus: int | None = None) -> None:
    """Make a saved VM that the shim's VMs of the same size start from, in place of a boot.

    Its key is printed.
    """
    from innkeeper.node.template import make

    print(make(str(config or ""), memory, cpus))


def check(config: Path | None = None, address: Path | None = None, json: bool = False) -> int:
    """Say what this node lacks, in the order in which to mend it.

    Exit status 0 if pods can run, 1 if not.
    """
    from innkeeper.node import check
    from innkeeper.shim import settings

    findings = check.examine(config or settings.PATH, address or check.SOCKET)
    if json:
        show.print_json([finding.__dict__ for finding in findings])
    else:
        words = {True: "yes", False: "no"}
        show.table(("CHECK", "", ""), [(one.name, words[one.works], one.detail) for one in findings])
        print()
        failed = [one for one in findings if not one.works]
        for number, one in enumerate(failed, 1):
            print(f"{number}. {one.name}{'' if one.required else ' (optional)'}: {one.mend}")
    return 0 if all(one.works or not one.required for one in findings) else 1


_PREFIX = flags.single("prefix", "--prefix", kind=flags.PATH, metavar="DIR", default=PREFIX, help="Where the shim and its guest go.")

_CONFIG = flags.single(
    "config", "--config", kind=flags.PATH, metavar="FILE", help="The shim's configuration; /etc/innkeeper/shim.toml by default."
)

COMMAND = flags.Group(
    name="shim",
    text="Install our containerd shim on a node, remove it, make a template for it, or say what the node lacks.",
    commands=(
        flags.Command(
            name="install",
            run=install,
            flags=(
                _PREFIX,
                flags.single(
                    "etc", "--etc", kind=flags.PATH, metavar="DIR", default=ETC, help="Where the configurations go, in a folder of ours."
                ),
                flags.single(
                    "bin",
                    "--bin",
                    kind=flags.PATH,
                    metavar="DIR",
                    default=BIN,
                    help="A folder on containerd's PATH, for a link to the shim.",
                ),
                flags.single(
                    "handler", "--handler", metavar="NAME", default=HANDLER, help="Name of the runtime handler and its RuntimeClass."
                ),
                flags.single("guest", "--guest", metavar="oci:REF", help="A guest in a registry, by its digest (`build --push`)."),
            ),
            examples=("shim install", "shim install --prefix /srv/innkeeper --bin /usr/bin"),
        ),
        flags.Command(name="uninstall", run=uninstall, flags=(_PREFIX,)),
        flags.Command(
            name="package",
            run=package,
            flags=(
                flags.single("output", "-o", "--output", kind=flags.PATH, metavar="DIR", default=OUTPUT, help="Where the package goes."),
            ),
        ),
        flags.Command(
            name="template",
            run=template,
            flags=(
                _CONFIG,
                flags.single(
                    "memory", "--memory", kind=int, minimum=64, metavar="MIB", help="Memory of the VMs; of the configuration by default."
                ),
                flags.single(
                    "cpus", "--cpus", kind=int, minimum=1, metavar="N", help="Processors of the VMs; of the configuration by default."
                ),
            ),
            examples=("shim template", "shim template --memory 768"),
        ),
        flags.Command(
            name="check",
            run=check,
            flags=(
                _CONFIG,
                flags.single("address", "--address", kind=flags.PATH, metavar="SOCKET", help="containerd's socket."),
                flags.JSON,
            ),
            examples=("shim check", "shim check --json"),
        ),
    ),
)
