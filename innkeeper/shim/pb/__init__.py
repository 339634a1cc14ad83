"""Message classes, generated from `innkeeper/shim/proto` by `python -m tests.generate_messages`; do not edit."""
