"""Translating the host's request for a container to the guest.

This covers shared namespaces, device numbers of the guest, vendor devices (CDI), guest hooks, users
by name, and passed-through streams.
"""
