"""A container in a virtual machine as a library: request, session, exec, streams, records. Prints nothing."""
