"""Storages: the file systems that containers are built from.

A driver is a module with one function, `attach`, which mounts and returns how to undo that
(`driver`). The table of `manager` counts the users of each mount point.

## The life of a mount

1. `acquire` looks the mount point up. An entry that is attached gets one more user. Otherwise the
   driver's `attach` mounts it, mostly in a worker (agent/worker.py), because the device or the far
   side of a share may block mount(2) for ever, and PID 1 must not block.
2. The worker sends descriptors of the new mount and of the directory above it. The unmount goes
   through these, because a container with a volume there can rename what the path leads to
   (`mounted`, CVE-2020-2024).
3. `commit` follows once the container has been created. Without it a failed request detaches
   everything that it acquired, also volumes that would outlive the container (an emptyDir).
4. `release` takes one user away. Without users the mount is detached, unless it is such a volume.
   `clear` detaches the rest, latest first, when the sandbox ends, and nothing is acquired after it.

## Locks

Requests run concurrently, and two mounts at one place must not overlap. So an entry has a lock that
is held for the whole of an attach or a detach, and the entry stays in the table until the detach is
over. A task that has waited for the lock compares the entry with the table again: it may have been
removed meanwhile. There is no lock over several entries. The order of nested mounts is that of the
request, and only disks that are mounted in separate places are attached at once.

## Cancelled callers

A client's deadline cancels a request anywhere. During an attach, the worker is killed and what it
may have mounted is undone. The ids of the mounts before and after say what that is, because the
worker may have died between mounting and reporting. A release and a clear go on to their end in a
task of their own (agent/run_to_completion.py), since nobody would repeat them. So a cancelled
caller leaves either an attached mount that is counted, or nothing.
"""
