"""What the bootloader runs before the agent's `__main__`."""

import sys

import pyimod02_importers  # type: ignore[import-not-found]

pyimod02_importers.install()
sys.frozen = True  # type: ignore[attr-defined]
