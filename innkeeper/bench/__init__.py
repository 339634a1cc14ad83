"""Measures this machine: the guest's boot and sizes, containers in a warm guest, and the agent beside runc and crun.

Subjects that are compared run in one loop, in an order drawn anew each round, with gaps: back to back they would warm each other.
"""
