"""Mount points: made and opened by descriptor without following a link, so that a share cannot lead elsewhere."""

import os
import stat

from agent.errors import Refused
from agent.linux.openat2 import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

STRAIGHT = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
DIRECTORY_MODE = 0o755
FILE_MODE = 0o644


def check_path(field: str, path: str) -> None:
    """Refuse a path that is not absolute, is the root, or has `..`, `.` or empty parts."""
    if not path.startswith("/") or path == "/" or "\0" in path or os.path.normpath(path) != path.rstrip("/"):
        raise Refused(field, f"{path!r} is no plain absolute path below /")


def open_directory(path: str, mode: int = DIRECTORY_MODE) -> int:
    """An O_PATH descriptor of the directory `path`, made with its parents where missing. OSError ELOOP for a symbolic link on the way."""
    current = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in filter(None, path.split("/")):
        try:
            following = enter(current, name, path, mode)
        finally:
            os.close(current)
        current = following
    return current


def enter(parent: int, name: str, path: str, mode: int = DIRECTORY_MODE) -> int:
    """The directory `name` of `parent` likewise. `path` is for the error."""
    try:
        return openat2(parent, name, os.O_PATH | os.O_DIRECTORY, STRAIGHT)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass
    return openat2(parent, name, os.O_PATH | os.O_DIRECTORY, STRAIGHT)


def make_file(parent: int, name: str) -> int:
    """An O_PATH descriptor of the file `name` of `parent`, made empty where missing."""
    try:
        return openat2(parent, name, os.O_PATH, STRAIGHT)
    except FileNotFoundError:
        os.close(openat2(parent, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, STRAIGHT, FILE_MODE))
        return openat2(parent, name, os.O_PATH, STRAIGHT)


def remove_tree(parent: int, name: str) -> None:
    """Remove `name` below the directory `parent` with all in it. No link is followed and nothing mounted is entered: OSError EXDEV."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    directory = openat2(parent, name, os.O_RDONLY | os.O_DIRECTORY, STRAIGHT | RESOLVE_NO_XDEV)
    try:
        for entry in os.listdir(directory):
            remove_tree(directory, entry)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)
