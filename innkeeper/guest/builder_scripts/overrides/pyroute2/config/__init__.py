"""What pyroute2's netlink message classes read of its settings."""

import os

AF_BRIDGE = 7
AF_NETLINK = 16
data_plugins_path: list[str] = []
data_plugins_pkgs: list[str] = []
machine = os.uname().machine
