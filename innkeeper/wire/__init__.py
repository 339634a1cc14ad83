"""What both sides agree on: frames, the connection machine, envelope, status codes, messages. No I/O."""
