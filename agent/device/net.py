"""Finding a network interface by its PCI path."""

from agent.device import pci
from agent.device.watch import DeviceWatch


async def net_device(devices: DeviceWatch, text: str) -> str:
    """Return the current name of the network interface at a PCI path.

    Waits for it. Raises TimeoutError if it does not appear, and Refused for a malformed path.
    """
    path = pci.parse(text, "interface.devicePath")

    def find() -> str | None:
        directory = pci.resolve(path, devices.sys_root)
        if directory is None:
            return None
        for below in (directory, *(f"{directory}/{child}" for child in devices.names(directory) if child.startswith("virtio"))):
            for name in devices.names(f"{below}/net"):
                return name
        return None

    return await devices.wait_for(find, f"network interface at PCI path {text}")
