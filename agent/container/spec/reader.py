"""Reading a JSON document with its path in hand: every refusal names the field, every key is accounted for.

A key that is known and not applied here is refused; a key that the specification does not know is ignored, and listed in one warning.
JSON null counts as absent. Types are exact: true is not 1, 1.0 is not 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import Refused

JSON = Mapping[str, object]
Document = dict[str, Any]
"""A document that is still being made."""


class Kept(dict[str, Any]):
    """A part of documents that comes again and again, as one object that nobody changes. Who parses it leaves the result in `parsed`."""

    __slots__ = ("parsed",)

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self.parsed: object = None


U32 = (1 << 32) - 1
U64 = (1 << 64) - 1
I64 = (1 << 63) - 1


class Node:
    """One object of the document. `path` is how the specification writes its place (`linux.resources.cpu`)."""

    __slots__ = ("_used", "document", "path", "warnings")

    def __init__(self, document: object, path: str, warnings: list[str]) -> None:
        if not isinstance(document, Mapping):
            raise Refused(path or "spec", f"must be an object, is {_kind(document)}")
        self.document: JSON = document
        self.path = path
        self.warnings = warnings
        self._used: set[str] = set()

    def name(self, key: str) -> str:
        """The full path of a key of this object."""
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> object:
        """The raw value; None where absent."""
        self._used.add(key)
        return self.document.get(key)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.get(key) is not None

    def required(self, key: str) -> object:
        """The raw value; refused where absent."""
        value = self.get(key)
        if value is None:
            raise Refused(self.name(key), "missing")
        return value

    def string(self, key: str, default: str = "") -> str:
        """Text without a NUL that can be encoded."""
        value = self.get(key)
        return default if value is None else text(value, self.name(key))

    def integer(self, key: str, low: int, high: int, default: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.get(key)
        return default if value is None else number(value, self.name(key), low, high)

    def optional(self, key: str, low: int, high: int) -> int | None:
        """A whole number, or None where absent."""
        value = self.get(key)
        return None if value is None else number(value, self.name(key), low, high)

    def boolean(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise Refused(self.name(key), f"must be true or false, is {_kind(value)}")
        return value

    def items(self, key: str) -> Sequence[object]:
        """A list; empty where absent."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise Refused(self.name(key), f"must be a list, is {_kind(value)}")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple([text(item, f"{self.name(key)}[{index}]") for index, item in enumerate(self.items(key))])

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """A list of whole numbers."""
        return tuple([number(item, f"{self.name(key)}[{index}]", low, high) for index, item in enumerate(self.items(key))])

    def child(self, key: str) -> "Node | None":
        """An object below; None where absent."""
        value = self.get(key)
        return None if value is None else Node(value, self.name(key), self.warnings)

    def children(self, key: str) -> "list[Node]":
        """A list of objects."""
        return [Node(item, f"{self.name(key)}[{index}]", self.warnings) for index, item in enumerate(self.items(key))]

    def mapping(self, key: str) -> dict[str, str]:
        """An object of texts."""
        value = self.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise Refused(self.name(key), f"must be an object, is {_kind(value)}")
        return {text(name, self.name(key)): text(item, f"{self.name(key)}.{name}") for name, item in value.items()}

    def refuse_known(self, *keys: str, reason: str = "not applied by this agent") -> None:
        """Refuse the first of `keys` that is there: the specification knows it, we do not apply it."""
        for key in keys:
            value = self.get(key)
            if value not in (None, "", (), [], {}):
                raise Refused(self.name(key), reason)

    def finish(self) -> None:
        """Note the keys nobody asked for."""
        if len(self._used) < len(self.document) or not self._used.issuperset(self.document):
            self.warnings.extend(f"{self.name(str(key))}: unknown, ignored" for key in self.document if key not in self._used)


def text(value: object, path: str) -> str:
    """A text that a C program can take."""
    if not isinstance(value, str):
        raise Refused(path, f"must be text, is {_kind(value)}")
    if "\0" in value:
        raise Refused(path, "holds a NUL")
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise Refused(path, "holds a lone surrogate") from None
    return value


def number(value: object, path: str, low: int, high: int) -> int:
    """A whole number in a range."""
    if type(value) is not int:
        raise Refused(path, f"must be a whole number, is {_kind(value)}")
    if not low <= value <= high:
        raise Refused(path, f"{value} is not between {low} and {high}")
    return value


def absolute(value: str, path: str) -> str:
    """A path that starts at the root."""
    if not value.startswith("/"):
        raise Refused(path, f"{value!r} is not an absolute path")
    if len(value) > 4095:
        raise Refused(path, "longer than 4095 characters")
    return value


def choice(value: str, path: str, table: Mapping[str, int]) -> int:
    """A word of a table, as its number."""
    if value not in table:
        raise Refused(path, f"{value!r} is unknown")
    return table[value]


def _kind(value: object) -> str:
    return "null" if value is None else "true or false" if isinstance(value, bool) else type(value).__name__
