"""The program that containerd starts: containerd-shim-innkeeper-v2.

Modules are imported by the action that needs them: `delete` runs at the end of every container, and
containerd waits for it.
"""

import os
import sys
from pathlib import Path

from innkeeper import __version__
from innkeeper.errors import InnkeeperError
from innkeeper.shim.arguments import Arguments, UsageError, parse

NAME = "io.containerd.innkeeper.v2"
PROGRAM = "containerd-shim-innkeeper-v2"


def main() -> int:
    """Do what the command line asks for. Return the exit status.

    containerd takes standard error into its own error, so nothing is written there but the failure.
    """
    try:
        arguments = parse(sys.argv[1:])
        if arguments.version:
            _write(f"{PROGRAM}:\n  Version:  {__version__}\n".encode())
        elif arguments.info:
            _write(_info())
        elif arguments.action == "start":
            from innkeeper.shim import bootstrap

            bootstrap.start(arguments, _standard_input(), _write)
        elif arguments.action == "delete":
            from innkeeper.shim import cleanup

            _write(cleanup.delete(_bundle(arguments)))
        else:
            raise UsageError("no action: start or delete")
    except UsageError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except (InnkeeperError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


def _info() -> bytes:
    """Return the answer to -info, with which containerd 2 learns what a runtime is."""
    from innkeeper.shim import features
    from innkeeper.shim.pb import containerd_pb2 as pb

    version = pb.RuntimeVersion(version=__version__)
    return pb.RuntimeInfo(name=NAME, version=version, features=features.packed(), annotations=features.ANNOTATIONS).SerializeToString()


def _bundle(arguments: Arguments) -> Path:
    return Path(arguments.bundle or os.getcwd())


def _standard_input() -> bytes:
    return b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()


def _write(data: bytes) -> None:
    """Write to standard output, which containerd reads to its end."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(main())
