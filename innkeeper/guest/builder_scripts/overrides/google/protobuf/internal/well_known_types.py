"""No conveniences (Any.Pack, Timestamp.ToDatetime, ...): the agent reads those messages' fields. upb looks the table up by name."""

WKTBASES: dict[str, type] = {}
