"""Filesystems that containers are made of: a driver a file, counted by mount point."""
