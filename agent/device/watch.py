"""Waiting for a device: what sysfs shows already, else the event that announces it."""

import errno
import os
from collections.abc import Callable

from agent import loop
from agent.device import uevent
from agent.device.uevent import Uevent
from agent.loop import Socket

HOTPLUG_TIMEOUT = 3.0
"""seconds; Kata's `agent.hotplug_timeout`"""


class DeviceWatch:
    """The kernel's device events, and those who wait for one. `sys_root` and `dev_root` are where sysfs and /dev are."""

    def __init__(self, hotplug_timeout: float = HOTPLUG_TIMEOUT, sys_root: str = "/sys", dev_root: str = "/dev") -> None:
        self.hotplug_timeout = hotplug_timeout
        self.sys_root = sys_root
        self.dev_root = dev_root
        self._socket: Socket | None = None
        self._waiting: set[loop.Event] = set()

    def start(self) -> None:
        """Listen from now on; inside the loop."""
        self._socket = uevent.open_socket()
        loop.spawn(self._listen(self._socket), name="uevents")

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()  # which ends the task
            self._socket = None

    async def _listen(self, events: Socket) -> None:
        while True:
            try:
                await loop.readable(events)
                event = uevent.receive(events)
            except BlockingIOError:
                continue
            except loop.DescriptorClosed:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                event = None  # events were lost: everybody looks at sysfs again
            self.announce(event)

    def announce(self, event: Uevent | None) -> None:
        """Make those who wait look again, unless nothing has come (`remove` and the like)."""
        if event is None or event.action in ("add", "change", "move", "online", "bind"):
            for waiting in list(self._waiting):
                waiting.set()

    async def wait_for(self, find: Callable[[], str | None], subject: str) -> str:
        """The first answer of `find` that is not None: asked at once, then after each event, for `hotplug_timeout` seconds.

        `find` looks at sysfs, so a device that was there before the listener, or whose event was lost, is found as well.
        TimeoutError names `subject`.
        """
        event = loop.Event()
        self._waiting.add(event)
        try:
            with loop.timeout(self.hotplug_timeout):
                while (found := find()) is None:
                    await event.wait()
                    event.clear()
                return found
        except TimeoutError:
            raise TimeoutError(f"{subject} did not appear within {self.hotplug_timeout:g} s") from None
        finally:
            self._waiting.discard(event)

    def names(self, directory: str) -> list[str]:
        """The names in a directory of sysfs, sorted; none where it does not exist."""
        try:
            return sorted(os.listdir(self.sys_root + directory))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def node(self, block_directory: str) -> str | None:
        """The path of the node of the block device at this directory of sysfs, once it is there with the right numbers."""
        return self.named(block_directory, os.path.basename(block_directory).replace("!", "/"))

    def named(self, directory: str, name: str) -> str | None:
        """The same for a device of any kind, whose node is `name` below /dev."""
        try:
            with open(f"{self.sys_root}{directory}/dev") as file:
                major, minor = map(int, file.read().split(":"))
            path = f"{self.dev_root}/{name}"
            return path if os.stat(path).st_rdev == os.makedev(major, minor) else None
        except FileNotFoundError:
            return None
