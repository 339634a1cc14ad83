"""swapon(2) and swapoff(2)."""

from agent.linux.libc import call, path_bytes, s32


def swapon(path: str) -> None:
    """Use the device or file at `path`, which has a swap header (mkswap(8)), as swap space."""
    call("swapon", path_bytes(path), s32(0), path=path)


def swapoff(*paths: str) -> None:
    """Take swap space out of use; what is in it goes back to memory, which may take its time."""
    for path in paths:
        call("swapoff", path_bytes(path), path=path)
