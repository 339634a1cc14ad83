"""Deprecated name of `innkeeper.image.run_plan`, kept until 0.2 for existing programs."""

from innkeeper.image.run_plan import plan_run

__all__ = ["plan_run"]
