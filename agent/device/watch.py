"""Waiting for a device to appear.

An event may arrive before anybody waits for it, and the kernel may drop events when the socket's
buffer is full. Events are therefore only a reason to look at sysfs again. The wait registers first
and looks afterwards, so a device that appears in between is not missed.
"""

import errno
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent import loop
from agent.device import uevent
from agent.errors import StepFailed
from agent.loop import Socket

T = TypeVar("T")

HOTPLUG_TIMEOUT = 3.0
"""The default of Kata's setting `agent.hotplug_timeout`, in seconds."""


class DeviceWatch:
    """The listener for device events and the tasks that wait for devices.

    `sys_root` and `dev_root` are the paths of sysfs and /dev.
    """

    def __init__(self, hotplug_timeout: float = HOTPLUG_TIMEOUT, sys_root: str = "/sys", dev_root: str = "/dev") -> None:
        self.hotplug_timeout = hotplug_timeout
        self.sys_root = sys_root
        self.dev_root = dev_root
        self._socket: Socket | None = None
        self._waiting: set[loop.Event] = set()

    def start(self) -> None:
        """Start to listen. Must be called inside the loop. Raises OSError."""
        self._socket = uevent.open_socket()
        loop.spawn(self._listen(self._socket), name="uevents")

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()  # ends the task: readable() raises DescriptorClosed
            self._socket = None

    async def _listen(self, events: Socket) -> None:
        while True:
            try:
                await loop.readable(events)
                action = uevent.receive(events)
            except BlockingIOError:
                continue
            except loop.DescriptorClosed:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                action = None  # events were lost: every waiting task looks at sysfs again
            self.announce(action)

    def announce(self, action: str | None) -> None:
        """Make the waiting tasks look again, unless an event only reports a removal or the like.

        None stands for lost events.
        """
        if action is None or action in ("add", "change", "move", "online", "bind"):
            for waiting in list(self._waiting):
                waiting.set()

    async def wait_for(self, find: Callable[[], str | None], subject: str) -> str:
        """Call `find` until it returns something other than None, and return that.

        It is called at once, then after each event, for `hotplug_timeout` seconds. It looks at
        sysfs, so it also finds a device that appeared before the listener was started, or whose
        event was lost. Raises TimeoutError, naming `subject`.
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

    async def retry(self, attempt: Callable[[], Awaitable[T]], number: int) -> T:
        """Call `attempt` again after each event while it fails with the error `number`.

        Waits for events for `hotplug_timeout` seconds, and an attempt itself may take any time. For
        what sysfs does not show. Raises StepFailed as the last attempt did.
        """
        deadline = time.monotonic() + self.hotplug_timeout
        event = loop.Event()
        self._waiting.add(event)
        try:
            while True:
                try:
                    return await attempt()
                except StepFailed as error:
                    if error.errno != number:
                        raise
                    failure = error
                try:
                    with loop.timeout(max(deadline - time.monotonic(), 0)):
                        await event.wait()
                except TimeoutError:
                    raise failure from None
                event.clear()
        finally:
            self._waiting.discard(event)

    def has(self, directory: str) -> bool:
        """Return whether a directory of sysfs exists."""
        return os.path.isdir(self.sys_root + directory)

    def names(self, directory: str) -> list[str]:
        """Return the sorted names in a directory of sysfs, an empty list if it does not exist."""
        try:
            return sorted(os.listdir(self.sys_root + directory))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def node(self, block_directory: str) -> str | None:
        """Return the path of the node of the block device at this directory of sysfs.

        Returns None until the node exists with the right device number.
        """
        return self.device_node(block_directory, os.path.basename(block_directory).replace("!", "/"))

    def device_node(self, directory: str, name: str) -> str | None:
        """Return the path of a device's node, as `node` does, for a device of any type.

        `name` is the node's path relative to /dev.
        """
        try:
            with open(f"{self.sys_root}{directory}/dev") as file:
                major, minor = map(int, file.read().split(":"))
            path = f"{self.dev_root}/{name}"
            return path if os.stat(path).st_rdev == os.makedev(major, minor) else None
        except FileNotFoundError:
            return None
