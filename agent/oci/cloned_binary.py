"""The program file of a process that a container can see: a sealed copy in memory.

Before its program is executed, a process of a container is this runtime. A container could make it
execute /proc/self/exe, or keep a descriptor of /proc/PID/exe until the process has ended, and then
open that file for writing. So the file must not be a file of the host (CVE-2019-5736). The
program's first act is to copy the file to a memfd that is sealed against writing, and to execute
that.

For the frozen program, the launcher does this before there is an interpreter. Otherwise the
interpreter's own file is copied here. Libraries and modules cannot be reached that way: they are
mapped only until the process, undumpable up to then, executes the container's program.
"""

import os
import sys

from agent.errors import StepFailed
from agent.linux.sealed import EXE, copy, is_sealed

MARK = "INNKEEPER_OCI_SEALED"


def require() -> None:
    """Return if the program file is sealed, else execute a sealed copy of it.

    Raises StepFailed, OSError.
    """
    again = os.environ.pop(MARK, "")
    if is_sealed():
        return
    if again:
        raise StepFailed("seal the program", f"{EXE} is not the sealed copy that was executed")
    environment = {**os.environ, MARK: "1"}
    # The specification is UTF-8, whatever the caller's locale is.
    options = ["-X", "utf8"]
    if getattr(sys, "frozen", False):
        # PyInstaller's loader finds its files by its own path, which the copy does not have. It
        # takes no options.
        environment |= {"_PYI_ARCHIVE_FILE": sys.executable, "_PYI_PARENT_PROCESS_LEVEL": "-1"}
        options = []
    os.execve(copy(), [sys.executable, *options, *sys.orig_argv[1:]], environment)


def forget_launcher() -> None:
    """Remove the environment variables that the frozen program's launcher has set.

    They are not meant for the host's programs that this process runs.
    """
    for name in ("LD_LIBRARY_PATH", "_PYI_ARCHIVE_FILE", "_PYI_PARENT_PROCESS_LEVEL"):
        if getattr(sys, "frozen", False):
            os.environ.pop(name, None)
