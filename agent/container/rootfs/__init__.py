"""The container's root file system: mounts, device nodes, masked and read-only paths, as operations in order."""
