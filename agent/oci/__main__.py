"""`python -m agent.oci`: run the command without installing it."""

import sys

from agent.oci.main import main

if __name__ == "__main__":
    sys.exit(main())
