"""Storage driver `ephemeral`: tmpfs (/dev/shm, emptyDir in memory) and hugetlbfs (huge pages)."""

from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.storage.driver import Context, Detach, mount_filesystem, mount_in_worker, options_without, refuse_driver_options, unmounter
from agent.storage.local import parse_number, set_owner_and_mode
from agent.storage.options import Options
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "ephemeral"
HUGE_PAGES = "/sys/kernel/mm/hugepages/hugepages-{}kB/{}"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount tmpfs or hugetlbfs, according to `fstype`.

    For tmpfs, `fsgid=N` gives the root that group and the setgid bit. tmpfs is mounted without a
    worker, because no device or daemon is involved that could block.
    """
    refuse_driver_options(storage)
    options = options_without(storage, "bind", "remount")
    if storage.fstype == "hugetlbfs":
        return await _huge_pages(storage, options)
    if storage.fstype != "tmpfs":
        raise Refused("storage.fstype", f"{storage.fstype!r} is not tmpfs or hugetlbfs")
    group = options.value("fsgid")
    options = options._replace(data=tuple(item for item in options.data if item[0] != "fsgid"))
    group_id = None if group is None else parse_number("storage.options", f"fsgid={group}", group, 10)
    mounted = mount_filesystem("tmpfs", storage.source or "tmpfs", storage.mount_point, options)
    if group_id is not None:
        try:
            set_owner_and_mode(storage.mount_point, None, group_id)
        except OSError:
            mounted.unmount()
            raise
    return unmounter(mounted, storage.mount_point)


async def _huge_pages(storage: "Storage", options: Options) -> Detach:
    """Make sure that enough huge pages are free, then mount. `pagesize` and `size` are in bytes."""
    sizes = []
    for key in ("pagesize", "size"):
        sizes.append(parse_number("storage.options", f"{key}={options.value(key)}", options.value(key) or "", 10))
    page, size = sizes
    if not page or page % 1024:
        raise Refused("storage.options", f"pagesize={page} is no size of a page")
    pages = -(-size // page)
    await run_in_worker(lambda: _reserve(page // 1024, pages), f"huge pages for {storage.mount_point}")
    return await mount_in_worker("hugetlbfs", storage.source or "nodev", storage.mount_point, options)


def _reserve(kib: int, wanted: int) -> None:
    """Raise the number of huge pages of `kib` kB until `wanted` are free and not reserved.

    Raises OSError ENOMEM, with the old number restored, if the kernel cannot allocate them.
    """
    missing = wanted - (_pages(kib, "free_hugepages") - _pages(kib, "resv_hugepages"))
    if missing <= 0:
        return
    before = _pages(kib, "nr_hugepages")
    path = HUGE_PAGES.format(kib, "nr_hugepages")
    with open(path, "w") as file:
        file.write(str(before + missing))
    # The write succeeds even if the kernel allocates fewer pages: only the new number shows it.
    if _pages(kib, "nr_hugepages") < before + missing:
        with open(path, "w") as file:
            file.write(str(before))
        raise OSError(12, f"not enough memory for {missing} pages of {kib} kB")


def _pages(kib: int, name: str) -> int:
    """Return a counter of the huge pages of `kib` kB. Raises Refused for an unknown page size."""
    try:
        with open(HUGE_PAGES.format(kib, name)) as file:
            return int(file.read())
    except FileNotFoundError:
        raise Refused("storage.options", f"the kernel has no pages of {kib} kB") from None
