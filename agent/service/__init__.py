"""What the agent serves: listener, dispatch, handlers."""
