"""Benchmarks: the guest's boot and sizes, containers in a warm guest, and the agent beside runc.

crun is compared as well. Subjects that are compared run in one loop, in a new random order each
round and with gaps. If they ran back to back, they would warm each other.
"""
