"""No conveniences such as Any.Pack: the agent reads the fields of those messages itself.

upb looks the table up by name.
"""

WKTBASES: dict[str, type] = {}
