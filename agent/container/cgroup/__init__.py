"""A container's cgroup (v2): its limits, device rules, statistics and removal."""
