"""`python -m innkeeper.cli`."""

import sys

from innkeeper.cli import main

sys.exit(main())
