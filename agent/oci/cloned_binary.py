"""The program file of a process that a container can see: a sealed copy in memory.

Before its program is executed, a process of a container is this runtime. A container that makes it execute /proc/self/exe, or keeps a
descriptor of /proc/PID/exe until the process has ended, could open that file for writing: it must not be a file of the host
(CVE-2019-5736). So the program's first act is to copy the file to a memfd that nobody can write any more, and to execute that. For the
frozen program the launcher does it before there is an interpreter; else the interpreter's own file is copied here. Libraries and
modules are out of reach by that way: they are mapped only before the process, undumpable until then, executes the container's program.
"""

import os
import sys

from agent.errors import StepFailed
from agent.linux.sealed import EXE, copy, is_sealed

MARK = "INNKEEPER_OCI_SEALED"


def require() -> None:
    """Return in a process whose program file is sealed; else start over as one. Raises StepFailed, OSError."""
    again = os.environ.pop(MARK, "")
    if is_sealed():
        return
    if again:
        raise StepFailed("seal the program", f"{EXE} is not the sealed copy that was executed")
    environment = {**os.environ, MARK: "1"}
    options = ["-X", "utf8"]  # the specification is UTF-8, whatever the caller's locale
    if getattr(sys, "frozen", False):
        # PyInstaller's loader finds what belongs to it by its own path, which the copy does not have; it takes no options.
        environment |= {"_PYI_ARCHIVE_FILE": sys.executable, "_PYI_PARENT_PROCESS_LEVEL": "-1"}
        options = []
    os.execve(copy(), [sys.executable, *options, *sys.orig_argv[1:]], environment)


def forget_launcher() -> None:
    """Take out of the environment what starting the frozen program put into it: it is not for programs of the host that are run."""
    for name in ("LD_LIBRARY_PATH", "_PYI_ARCHIVE_FILE", "_PYI_PARENT_PROCESS_LEVEL"):
        if getattr(sys, "frozen", False):
            os.environ.pop(name, None)
