"""Network configuration of the guest's own network namespace: links, addresses, routes and DNS.

This file imports nothing. `loopback` is part of start-up. The other modules are imported by the
first request that needs them.
"""
