"""The program in the guest. These constants are here, so that reading them imports nothing more."""

VERSION = "0.1.0"
"""The version of this program, as of `innkeeper.__version__`."""
KATA_AGENT_VERSION = "4.1.0"
"""The version of Kata's agent that this one stands for."""
KATA_API_VERSION = "0.0.1"
"""The version of the API of Kata's agent."""
