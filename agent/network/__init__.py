"""Network configuration of the guest's own network namespace: links, addresses, routes and DNS.

This file imports nothing. Its modules are imported by the first request that needs them.
"""
