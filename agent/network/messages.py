"""The message classes of pyroute2, without the rest of pyroute2.

The package's `__init__` imports 300 modules (asyncio, sqlite3, ssl, ...). The package is therefore
registered in sys.modules without running that file. This works the same in the frozen agent and
outside of it. If pyroute2 is already imported as a whole, it is used as it is.
"""

import importlib.util
import sys


def _register_bare_package() -> None:
    """Put the package pyroute2 in sys.modules without executing it."""
    if "pyroute2" in sys.modules:
        return
    spec = importlib.util.find_spec("pyroute2")
    if spec is None:
        raise ModuleNotFoundError("no module named pyroute2", name="pyroute2")
    sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)


_register_bare_package()

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: E402 - after the package was registered
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402
from pyroute2.netlink.rtnl.ndmsg import ndmsg  # noqa: E402
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: E402

__all__ = ["ifaddrmsg", "ifinfmsg", "ndmsg", "rtmsg"]
