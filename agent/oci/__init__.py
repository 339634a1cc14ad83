"""The container core as an OCI runtime command, `innkeeper-oci`.

It has runc's subcommands, options and exit codes. `commands` has a file for each family of
subcommands, and `command_table` lists them. Nothing here is part of the guest's agent.
"""
