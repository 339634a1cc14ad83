"""Why a VM has failed, as an error with what its console and QEMU's log have on it."""

import signal
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.vm import console, network

CONSOLE_LINES = 15
"""Lines of the console that an error shows."""
LOAD_LINES = 6
"""Lines of QEMU's log that the error of a state that cannot be loaded shows."""


def with_console(message: str, console_path: Path) -> InnkeeperError:
    """Return an error with the console's last lines."""
    lines = console.tail(console_path, CONSOLE_LINES)
    if lines:
        message += "; its console's last lines:\n" + "\n".join(f"  {line}" for line in lines)
    else:
        message += "; nothing came on its console"
    return InnkeeperError(message)


def of_panic(console_path: Path) -> InnkeeperError | None:
    """Return the error of a guest whose kernel panicked, or None."""
    if (reason := console.panic(console_path)) is None:
        return None
    memory = ", it ran out of memory" if console.ran_out_of_memory(console_path) else ""
    return with_console(f"the guest's kernel panicked{memory}: {reason}", console_path)


def of_qemu(code: int, log: Path, console_path: Path) -> InnkeeperError:
    """Return the error of a QEMU that has ended by itself. `code` is its return code."""
    stderr = log.read_text(errors="replace").strip() if log.exists() else ""
    if (port := network.explain(stderr)) is not None:
        return network.PortError(port, hint="choose another with -p, or stop what uses it: ss -lntup")
    if code == -signal.SIGBUS:
        return with_console("QEMU was killed by SIGBUS: no space is left for the guest's memory", console_path)
    if code < 0:
        return with_console(f"QEMU was killed by signal {-code}", console_path)
    if code > 0:
        return InnkeeperError(f"QEMU ended with status {code}: {stderr.splitlines()[-1] if stderr else 'it said nothing'}")
    return with_console("the guest ended before it was asked to", console_path)


def of_load(error: InnkeeperError, log: Path) -> InnkeeperError:
    """Return the error of a QEMU that could not load its state, with what it said about it.

    Its last line only repeats that it failed; the reason is in those before it.
    """
    lines = log.read_text(errors="replace").strip().splitlines()[-LOAD_LINES:]
    return InnkeeperError(f"{error.message} ({'; '.join(lines)})" if lines else error.message)
