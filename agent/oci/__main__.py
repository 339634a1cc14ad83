"""`python -m agent.oci`: the command without being installed."""

import sys

from agent.oci.main import main

if __name__ == "__main__":
    sys.exit(main())
