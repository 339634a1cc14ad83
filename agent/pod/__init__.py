"""The containers of a pod, and translating the host's request for one to the guest.

This covers shared namespaces, device numbers of the guest, vendor devices (CDI), guest hooks, users
by name, and passed-through streams.
"""
