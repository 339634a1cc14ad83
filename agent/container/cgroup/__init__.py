"""A container's cgroup (v2): limits, device rules, statistics and removal."""
