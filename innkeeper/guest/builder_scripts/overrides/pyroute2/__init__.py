"""Empty on purpose: the agent imports pyroute2's message classes from their own modules."""
