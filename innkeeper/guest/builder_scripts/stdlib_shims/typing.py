"""Names for annotations, which the frozen agent does not evaluate.

That saves 0.4 MB of PID 1. What classes are really made of (NamedTuple) works as in the original;
the rest can be subscripted, joined by | and inherited from.
"""

from collections import namedtuple

TYPE_CHECKING = False


class _Form:
    def __getitem__(self, item):
        return self

    def __or__(self, other):
        return self

    __ror__ = __or__


Any = BinaryIO = Callable = ClassVar = Collection = Dict = Final = IO = Iterable = Iterator = _Form()
Literal = Never = Optional = Self = Tuple = Union = _Form()


class Generic:
    def __class_getitem__(cls, item):
        return cls


class Protocol(Generic):
    pass


def TypeVar(name, *bounds, **variance):
    return Any


def cast(kind, value):
    return value


def get_origin(kind):
    """Return None: functools.singledispatch asks, and nothing here is made of something else."""


def get_args(kind):
    return ()


def overload(function):
    return function


class _NamedTupleMeta(type):
    """The metaclass of NamedTuple: a class becomes a namedtuple of its annotations."""

    def __new__(meta, name, bases, namespace):
        fields = namespace.get("__annotations__", {})
        made = namedtuple(name, fields, defaults=[namespace[field] for field in fields if field in namespace])
        made.__module__ = namespace["__module__"]
        for key, value in namespace.items():
            if key not in fields and not key.startswith("__"):
                setattr(made, key, value)
        return made


NamedTuple = type.__new__(_NamedTupleMeta, "NamedTuple", (), {})
