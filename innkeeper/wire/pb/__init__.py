"""Message classes, generated from `innkeeper/wire/proto` by `python -m tests.generate_messages`; do not edit."""
