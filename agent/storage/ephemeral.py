"""Memory as a filesystem: tmpfs (/dev/shm and emptyDir in memory) with its options, and huge pages."""

from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.storage.driver import Context, Detach, mount_filesystem, mount_in_worker, plain_options, refuse_driver_options, unmounting
from agent.storage.local import give, number
from agent.storage.options import Options
from agent.worker import run_in_worker

if TYPE_CHECKING:
    from innkeeper.wire.pb.agent_pb2 import Storage

NAME = "ephemeral"
STAYS = True
"""A volume outlives the containers that use it: one that starts anew finds what it left."""
HUGE_PAGES = "/sys/kernel/mm/hugepages/hugepages-{}kB/{}"


async def attach(storage: "Storage", context: Context) -> Detach | None:
    """Mount tmpfs or hugetlbfs. `fsgid=N` gives the root that group and the setgid bit."""
    refuse_driver_options(storage)
    options = plain_options(storage)
    if storage.fstype == "hugetlbfs":
        return await _huge_pages(storage, options)
    if storage.fstype != "tmpfs":
        raise Refused("storage.fstype", f"{storage.fstype!r} is not tmpfs or hugetlbfs")
    group = options.value("fsgid")
    options = options._replace(data=tuple(item for item in options.data if item[0] != "fsgid"))
    group_id = None if group is None else number("storage.options", f"fsgid={group}", group, 10)
    mounted = mount_filesystem("tmpfs", storage.source or "tmpfs", storage.mount_point, options)
    if group_id is not None:
        try:
            give(storage.mount_point, None, group_id)
        except OSError:
            mounted.take_away()
            raise
    return unmounting(mounted, storage.mount_point)


async def _huge_pages(storage: "Storage", options: Options) -> Detach:
    """See that enough pages of the size are free, then mount."""
    sizes = []
    for key in ("pagesize", "size"):
        sizes.append(number("storage.options", f"{key}={options.value(key)}", options.value(key) or "", 10))
    page, size = sizes
    if not page or page % 1024:
        raise Refused("storage.options", f"pagesize={page} is no size of a page")
    pages = -(-size // page)
    await run_in_worker(lambda: _reserve(page // 1024, pages), f"huge pages for {storage.mount_point}")
    return await mount_in_worker("hugetlbfs", storage.source or "nodev", storage.mount_point, options)


def _reserve(kib: int, wanted: int) -> None:
    """Raise the number of pages by what is missing for `wanted` free ones. OSError ENOMEM if the kernel does not find them."""
    missing = wanted - (_pages(kib, "free_hugepages") - _pages(kib, "resv_hugepages"))
    if missing <= 0:
        return
    before = _pages(kib, "nr_hugepages")
    path = HUGE_PAGES.format(kib, "nr_hugepages")
    with open(path, "w") as file:
        file.write(str(before + missing))
    if _pages(kib, "nr_hugepages") < before + missing:
        with open(path, "w") as file:
            file.write(str(before))
        raise OSError(12, f"not enough memory for {missing} pages of {kib} kB")


def _pages(kib: int, name: str) -> int:
    try:
        with open(HUGE_PAGES.format(kib, name)) as file:
            return int(file.read())
    except FileNotFoundError:
        raise Refused("storage.options", f"the kernel has no pages of {kib} kB") from None
