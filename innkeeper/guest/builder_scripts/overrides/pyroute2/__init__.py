"""Empty on purpose: the agent imports pyroute2's netlink message classes, by their own modules' names."""
