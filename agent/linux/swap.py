"""swapon(2) and swapoff(2)."""

from agent.linux.libc import call, path_bytes, s32


def swapon(path: str) -> None:
    """Enable swapping on the device or file at `path`, which has a swap header (mkswap(8))."""
    call("swapon", path_bytes(path), s32(0), path=path)


def swapoff(*paths: str) -> None:
    """Disable swapping on each path. Its pages go back to memory, which may take long.

    Raises the first OSError, after all paths were tried.
    """
    failed: OSError | None = None
    for path in paths:
        try:
            call("swapoff", path_bytes(path), path=path)
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed
