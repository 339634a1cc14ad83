"""The container's first process between clone3(2) and execve(2): the plan, and the steps that carry it out."""
