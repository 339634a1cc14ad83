"""Reads a JSON document with the path of each field: every error names the field.

No key is overlooked. A key that is known but not applied here is refused. A key that the
specification does not know is ignored, with a warning. JSON null counts as absent. Types are exact:
neither true nor 1.0 is 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import Refused

JSON = Mapping[str, object]
Document = dict[str, Any]
"""A document under construction."""


class CachedDocument(dict[str, Any]):
    """A part that is the same in many documents, as one object that nobody changes.

    Its parser stores the result in `parsed`.
    """

    __slots__ = ("parsed",)

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self.parsed: object = None


U32 = (1 << 32) - 1
U64 = (1 << 64) - 1
I64 = (1 << 63) - 1


class SpecReader:
    """One object of the document.

    `path` is its path in the specification's notation (`linux.resources.cpu`). Methods that read a
    value raise Refused if it has another type.
    """

    __slots__ = ("_used", "document", "path", "warnings")

    def __init__(self, document: object, path: str, warnings: list[str]) -> None:
        if not isinstance(document, Mapping):
            raise Refused(path or "spec", f"must be an object, is {_kind(document)}")
        self.document: JSON = document
        self.path = path
        self.warnings = warnings
        self._used: set[str] = set()

    def name(self, key: str) -> str:
        """Return the full path of a key of this object."""
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> object:
        """Return the raw value, or None if it is absent."""
        self._used.add(key)
        return self.document.get(key)

    def has(self, key: str) -> bool:
        """Return whether the key is present and not null."""
        return self.get(key) is not None

    def required(self, key: str) -> object:
        """Return the raw value. Raises Refused if it is absent."""
        value = self.get(key)
        if value is None:
            raise Refused(self.name(key), "missing")
        return value

    def string(self, key: str, default: str = "") -> str:
        """Return a text without NUL that can be encoded."""
        value = self.get(key)
        return default if value is None else text(value, self.name(key))

    def integer(self, key: str, low: int, high: int, default: int) -> int:
        """Return an integer from `low` to `high`."""
        value = self.get(key)
        return default if value is None else number(value, self.name(key), low, high)

    def optional(self, key: str, low: int, high: int) -> int | None:
        """Return an integer from `low` to `high`, or None if it is absent."""
        value = self.get(key)
        return None if value is None else number(value, self.name(key), low, high)

    def boolean(self, key: str, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise Refused(self.name(key), f"must be true or false, is {_kind(value)}")
        return value

    def items(self, key: str) -> Sequence[object]:
        """Return a list, empty if it is absent."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise Refused(self.name(key), f"must be a list, is {_kind(value)}")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple([text(item, f"{self.name(key)}[{index}]") for index, item in enumerate(self.items(key))])

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """Return a list of integers from `low` to `high`."""
        return tuple([number(item, f"{self.name(key)}[{index}]", low, high) for index, item in enumerate(self.items(key))])

    def child(self, key: str) -> "SpecReader | None":
        """Return an object below this one, or None if it is absent."""
        value = self.get(key)
        return None if value is None else SpecReader(value, self.name(key), self.warnings)

    def required_child(self, key: str) -> "SpecReader":
        """Return an object below this one. Raises Refused if it is absent."""
        return SpecReader(self.required(key), self.name(key), self.warnings)

    def children(self, key: str) -> "list[SpecReader]":
        """Return a list of objects."""
        return [SpecReader(item, f"{self.name(key)}[{index}]", self.warnings) for index, item in enumerate(self.items(key))]

    def mapping(self, key: str) -> dict[str, str]:
        """Return an object whose values are texts."""
        value = self.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise Refused(self.name(key), f"must be an object, is {_kind(value)}")
        return {text(name, self.name(key)): text(item, f"{self.name(key)}.{name}") for name, item in value.items()}

    def refuse_known(self, *keys: str, reason: str = "not applied by this agent") -> None:
        """Raise Refused for the first of `keys` that is present.

        The specification knows these keys, and this agent does not apply them.
        """
        for key in keys:
            value = self.get(key)
            if value not in (None, "", (), [], {}):
                raise Refused(self.name(key), reason)

    def finish(self) -> None:
        """Warn of the keys that nobody has read."""
        if len(self._used) < len(self.document) or not self._used.issuperset(self.document):
            self.warnings.extend(f"{self.name(str(key))}: unknown, ignored" for key in self.document if key not in self._used)


def text(value: object, path: str) -> str:
    """Return a text that can be passed to a C program. Raises Refused."""
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
    """Return an integer from `low` to `high`. Raises Refused."""
    if type(value) is not int:
        raise Refused(path, f"must be a whole number, is {_kind(value)}")
    if not low <= value <= high:
        raise Refused(path, f"{value} is not between {low} and {high}")
    return value


def absolute(value: str, path: str) -> str:
    """Return an absolute path. Raises Refused."""
    if not value.startswith("/"):
        raise Refused(path, f"{value!r} is not an absolute path")
    if len(value) > 4095:
        raise Refused(path, "longer than 4095 characters")
    return value


def choice(value: str, path: str, table: Mapping[str, int]) -> int:
    """Return the number of a word of the table. Raises Refused."""
    if value not in table:
        raise Refused(path, f"{value!r} is unknown")
    return table[value]


def _kind(value: object) -> str:
    return "null" if value is None else "true or false" if isinstance(value, bool) else type(value).__name__
