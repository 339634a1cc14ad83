"""Devices that appear while the guest runs: uevents, sysfs, PCI paths."""
