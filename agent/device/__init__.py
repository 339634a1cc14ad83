"""Hotplugged devices: waiting for them, and finding them by uevents, sysfs and PCI paths."""
