"""Making an ext4 filesystem on a disk."""

from agent.storage.guest_program import run_program

ARGUMENTS = ("-F", "-q", "-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128")


async def make_ext4(node: str, arguments: tuple[str, ...] = ()) -> None:
    """Run mkfs.ext4 with the options of Kata's agent.

    These are: no journal, no reserved blocks, few and small inodes. Raises Refused if the guest
    image does not ship mkfs.ext4.
    """
    await run_program("mkfs.ext4", (*ARGUMENTS, *arguments, node), field="storage.driver_options: create_filesystem")
