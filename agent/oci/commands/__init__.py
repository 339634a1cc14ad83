"""One file for each subcommand of `innkeeper-oci`."""
