"""The OCI runtime specification as frozen objects; each section of the document has a file."""
