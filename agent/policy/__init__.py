"""What a host may ask for: a small declarative policy in TOML. docs/policy.md describes it."""
