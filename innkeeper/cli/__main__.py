"""`python -m innkeeper.cli`."""

from innkeeper.cli import run_and_leave

if __name__ == "__main__":
    run_and_leave()
