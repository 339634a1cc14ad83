"""The policy: a declarative TOML file that limits what the host may request.

docs/policy.md describes the format.
"""
