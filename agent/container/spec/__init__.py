"""The OCI runtime specification as frozen objects. Each section of the document has a file."""
