"""Empty on purpose: protobuf imports this slow implementation beside upb's, and uses it only where upb is missing.

The freeze fails if upb is missing, because then nothing could be encoded at all.
"""
