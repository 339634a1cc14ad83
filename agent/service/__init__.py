"""The service of the agent: listener, dispatch and handlers."""
