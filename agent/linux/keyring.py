"""keyctl(2), add_key(2): give the calling process its own session keyring, and add keys to it."""

import ctypes
import errno

from agent.linux.libc import call, s32, u32

KEY_SPEC_SESSION_KEYRING = -3
KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEY_POS_ALL = 0x3F000000
"""All permissions for the possessor, none for other processes of the same user."""


def new_session_keyring() -> None:
    """Join a new, anonymous session keyring that no other process can find, read or link.

    Without it the container would inherit the agent's keyring, and could reach keys of the agent
    and of other containers. A kernel without keyrings (ENOSYS), or one that forbids them (EDQUOT,
    EPERM), has nothing to leak: these errors are ignored.
    """
    try:
        serial = call("keyctl", s32(KEYCTL_JOIN_SESSION_KEYRING), None)
        call("keyctl", s32(KEYCTL_SETPERM), s32(serial), u32(KEY_POS_ALL))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EDQUOT, errno.EPERM):
            raise


def add_key(description: str, payload: bytes) -> None:
    """Add a key of type "user" to the session keyring (add_key(2)). Raises OSError."""
    call("add_key", b"user", description.encode(), payload, ctypes.c_size_t(len(payload)), s32(KEY_SPEC_SESSION_KEYRING))
