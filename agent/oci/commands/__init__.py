"""The subcommands of `innkeeper-oci`, in one file for each family."""
