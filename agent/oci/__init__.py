"""The container core as an OCI runtime command, `innkeeper-oci`: runc's verbs, options and exit codes.

One verb family a file; `verbs` says which. Nothing here is part of the guest's agent.
"""
