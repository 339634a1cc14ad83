"""Empty on purpose: protobuf's slow implementation, which is used only where upb is missing.

protobuf imports it beside upb's. The freeze fails if upb is missing, because then nothing could be
encoded at all.
"""
