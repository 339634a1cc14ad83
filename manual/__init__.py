"""Generated parts of the documentation: reference pages and man pages.

The reference pages come from the parsers and .proto files, and the man pages come from the
reference pages. `python -m manual` writes `docs/reference/`. tests/unit/docs/test_manual.py fails
if these pages are out of date.
"""
