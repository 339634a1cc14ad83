"""Links, addresses, routes, neighbours and name resolution of the guest's own network namespace.

Nothing is imported here: `loopback` is part of start-up, all else is loaded by the first request that needs it.
"""
