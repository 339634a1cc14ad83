"""Creating and opening mount points by descriptor, without following symbolic links.

A path may lead through a share that the host or a container can change. With each component opened
relative to the one before, a link placed there is refused and cannot lead to another place in the
guest.
"""

import os

from agent.errors import Refused
from agent.linux.fd import OwnedFd
from agent.linux.openat2 import NO_LINKS, openat2

DIRECTORY_MODE = 0o755
FILE_MODE = 0o644


def check_path(field: str, path: str) -> None:
    """Raise Refused for a path that is relative, is `/`, or has `..`, `.` or empty components."""
    if not path.startswith("/") or path == "/" or "\0" in path or os.path.normpath(path) != path.rstrip("/"):
        raise Refused(field, f"{path!r} is no plain absolute path below /")


def open_directory(path: str, mode: int = DIRECTORY_MODE) -> int:
    """Return an O_PATH descriptor of the directory `path`.

    Missing directories are created with `mode`. Raises OSError: ELOOP for a symbolic link on the
    way.
    """
    current = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in filter(None, path.split("/")):
        with OwnedFd(current):
            current = enter(current, name, path, mode)
    return current


def enter(parent: int, name: str, path: str, mode: int = DIRECTORY_MODE) -> int:
    """Return an O_PATH descriptor of the directory `name` below the descriptor `parent`.

    As `open_directory`, for one component. `path` is only for the error's text.
    """
    try:
        return openat2(parent, name, os.O_PATH | os.O_DIRECTORY, NO_LINKS)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass
    return openat2(parent, name, os.O_PATH | os.O_DIRECTORY, NO_LINKS)


def make_file(parent: int, name: str) -> int:
    """Return an O_PATH descriptor of the file `name` below `parent`, created empty if missing."""
    try:
        return openat2(parent, name, os.O_PATH, NO_LINKS)
    except FileNotFoundError:
        os.close(openat2(parent, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, NO_LINKS, FILE_MODE))
        return openat2(parent, name, os.O_PATH, NO_LINKS)
