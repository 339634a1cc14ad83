"""ext4 on a fresh disk."""

from agent.storage.guest_program import run_program

ARGUMENTS = ("-F", "-q", "-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128")


async def make_ext4(node: str, arguments: tuple[str, ...] = ()) -> None:
    """Run mkfs.ext4 as Kata's agent does: no journal, no reserve, few and small inodes. Refused where the guest lacks the program."""
    await run_program("mkfs.ext4", (*ARGUMENTS, *arguments, node), field="storage.driver_options: create_filesystem")
