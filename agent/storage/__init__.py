"""Storages: the filesystems a container is built from. One driver per module, reference-counted by
mount point (manager.py)."""
