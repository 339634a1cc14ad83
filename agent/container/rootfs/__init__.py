"""The container's root filesystem as a list of operations.

Mounts, device nodes, masked and read-only paths.
"""
