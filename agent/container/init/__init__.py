"""A container's process between clone3(2) and execve(2): the plan and its steps."""
