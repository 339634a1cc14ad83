"""keyctl(2): a session keyring of one's own."""

import errno

from agent.linux.libc import call, s32, u32

KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEY_POS_ALL = 0x3F000000
"""Everything for who possesses it, nothing for others of the same user."""


def new_session_keyring() -> None:
    """A new, nameless session keyring that nobody else can find, read or link: keys of the agent and of other containers are out of reach.

    A kernel without keyrings, or one that forbids them, has nothing to leak: both are passed over.
    """
    try:
        serial = call("keyctl", s32(KEYCTL_JOIN_SESSION_KEYRING), None)
        call("keyctl", s32(KEYCTL_SETPERM), s32(serial), u32(KEY_POS_ALL))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EDQUOT, errno.EPERM):
            raise
