"""Prints what a tree holds, as JSON: run as a program, so that it also works in a mount namespace of its own.

python image_scan.py FOLDER
"""

import hashlib
import json
import os
import stat
import sys
from typing import Any


def scan(top: str) -> dict[str, dict[str, Any]]:
    """Path -> all that stat(2), the content and the extended attributes tell. Hard links name their group's first path."""
    found: dict[str, dict[str, Any]] = {}
    first: dict[int, str] = {}
    base = os.fsencode(top)
    paths = [base]
    while paths:
        path = paths.pop()
        status = os.lstat(path)
        name = repr(path[len(base) :] or b"/")
        record: dict[str, Any] = {
            "mode": oct(status.st_mode),
            "owner": [status.st_uid, status.st_gid],
            "mtime": status.st_mtime_ns,
            "xattrs": {key: os.getxattr(path, key, follow_symlinks=False).hex() for key in os.listxattr(path, follow_symlinks=False)},
        }
        if stat.S_ISDIR(status.st_mode):
            paths += sorted((entry.path for entry in os.scandir(path)), reverse=True)
        else:
            record["same as"] = first.setdefault(status.st_ino, name)
        if stat.S_ISREG(status.st_mode):
            record["size"] = status.st_size
            with open(path, "rb") as file:
                record["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            record["target"] = repr(os.readlink(path))
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            record["device"] = status.st_rdev
        found[name] = record
    return found


if __name__ == "__main__":
    json.dump(scan(sys.argv[1]), sys.stdout)
