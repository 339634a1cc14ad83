"""Generated parts of the documentation: pages from the parsers and .proto files, and man pages from those.

`python -m manual` writes `docs/reference/`; tests/unit/test_manual.py fails when these pages are out of date.
"""
