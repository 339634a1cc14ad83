"""NETLINK_ROUTE requests and answers, encoded and decoded by pyroute2's message classes.

pyroute2's `__init__` imports 300 modules (asyncio, sqlite3, ssl, ...). The package is therefore
registered in sys.modules without running that file. This works the same in the frozen agent and
outside of it. If pyroute2 is already imported as a whole, it is used as it is.
"""

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from agent.linux import netlink as nl

if "pyroute2" not in sys.modules:
    if (_spec := importlib.util.find_spec("pyroute2")) is None:
        raise ModuleNotFoundError("no module named pyroute2", name="pyroute2")
    sys.modules["pyroute2"] = importlib.util.module_from_spec(_spec)

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

_CLASSES = {
    **dict.fromkeys((nl.RTM_NEWLINK, nl.RTM_GETLINK, nl.RTM_SETLINK), ifinfmsg),
    **dict.fromkeys((nl.RTM_NEWADDR, nl.RTM_GETADDR), ifaddrmsg),
    **dict.fromkeys((nl.RTM_NEWROUTE, nl.RTM_GETROUTE), rtmsg),
    nl.RTM_NEWNEIGH: ndmsg,
}

Message = Any
"""A message of pyroute2, with fields as `[name]` and attributes as `.get_attr(NAME)`."""


def encode(kind: int, flags: int, sequence: int, fields: dict[str, Any], attrs: Sequence[tuple[str, Any]] = ()) -> bytes:
    """Return a request as bytes.

    `fields` are those of the message's fixed part, `attrs` are attributes by the kernel's names.
    """
    message = _CLASSES[kind]()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attrs)
    message["header"]["type"] = kind
    message["header"]["flags"] = flags | nl.NLM_F_REQUEST
    message["header"]["sequence_number"] = sequence
    message["header"]["pid"] = 0
    message.encode()
    return bytes(message.data)


def _decode(kind: int, data: bytes) -> Message:
    message = _CLASSES[kind](data)
    message.decode()
    return message


class RouteSocket(nl.NetlinkSocket):
    """A netlink socket in the network namespace of the caller: `with RouteSocket() as route:`."""

    def change(
        self, kind: int, fields: dict[str, Any], attrs: Sequence[tuple[str, Any]] = (), *, flags: int = 0, subject: str = ""
    ) -> None:
        """Send a change and read its acknowledgement.

        Raises OSError with the kernel's message. `subject` becomes the file name of the error.
        """
        try:
            self._request(kind, fields, attrs, flags)
        except OSError as error:
            raise OSError(error.errno, error.strerror, subject or None) from None

    def dump(self, kind: int, fields: dict[str, Any]) -> list[Message]:
        """Return all objects of a table. Raises OSError."""
        return [_decode(*answer) for answer in self._request(kind, fields, (), nl.NLM_F_DUMP)]

    def _request(self, kind: int, fields: dict[str, Any], attrs: Sequence[tuple[str, Any]], flags: int) -> list[tuple[int, bytes]]:
        return self.request(kind, encode(kind, flags, 0, fields, attrs)[nl.HEADER.size :], flags)
