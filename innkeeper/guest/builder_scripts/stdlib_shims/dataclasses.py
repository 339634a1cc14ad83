"""Classes made of their annotations, whose methods are not compiled while the agent is loaded.

The classes are as the original makes them. The original compiles six functions a class, a quarter
of what loading costs. Here all but `__init__` serve every class, and `__init__` is compiled when
the first object is made. What the agent does not use (order, unsafe_hash, a field's kw_only,
InitVar, ClassVar) is absent; `tests/unit/guest/test_small_dataclasses.py` holds each of the agent's
classes against the original.
"""

MISSING = object()


class FrozenInstanceError(AttributeError):
    pass


class Field:
    __slots__ = ("compare", "default", "default_factory", "name", "repr")

    def __init__(self, default, default_factory, repr, compare):
        self.name = None
        self.default = default
        self.default_factory = default_factory
        self.repr = repr
        self.compare = compare


def field(*, default=MISSING, default_factory=MISSING, repr=True, compare=True):
    return Field(default, default_factory, repr, compare)


def fields(made):
    return tuple(made.__dataclass_fields__.values())


def replace(instance, /, **changes):
    for name in instance.__dataclass_fields__:
        if name not in changes:
            changes[name] = getattr(instance, name)
    return instance.__class__(**changes)


def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False):
    if cls is None:
        return lambda cls: _make(cls, frozen, slots, kw_only)
    return _make(cls, frozen, slots, kw_only)


def _make(cls, frozen, slots, kw_only):
    namespace = dict(cls.__dict__)
    inherited = {}
    for base in cls.__mro__[:0:-1]:
        inherited |= getattr(base, "__dataclass_fields__", {})
    every = {**inherited, **_own_fields(namespace)}
    _add_methods(namespace, every, frozen, kw_only)
    if not slots:
        for name, value in namespace.items():
            if cls.__dict__.get(name, MISSING) is not value:
                setattr(cls, name, value)
        return _start(cls, every, frozen, kw_only)
    for name in every.keys() - inherited.keys():
        namespace.pop(name, None)
    namespace["__slots__"] = tuple(name for name in every if name not in inherited)
    namespace.pop("__dict__", None)
    namespace.pop("__weakref__", None)
    made = type(cls)(cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    return _start(made, every, frozen, kw_only)


def _own_fields(namespace):
    own = {}
    for name in namespace.get("__annotations__", {}):
        default = namespace.get(name, MISSING)
        own[name] = made = default if isinstance(default, Field) else Field(default, MISSING, True, True)
        made.name = name
        if made.default is not MISSING:
            namespace[name] = made.default
        elif default is made:
            del namespace[name]
    return own


def _add_methods(namespace, every, frozen, kw_only):
    namespace["__dataclass_fields__"] = every
    namespace.setdefault("__match_args__", () if kw_only else tuple(every))
    namespace.setdefault("__repr__", _repr)
    written_hash = namespace.get("__hash__", None) is not None
    namespace.setdefault("__eq__", _eq)
    if not written_hash:
        namespace["__hash__"] = _hash if frozen else None
    if frozen:
        namespace["__setattr__"] = _refuse_to_set
        namespace["__delattr__"] = _refuse_to_delete


def _start(cls, every, frozen, kw_only):
    """Give the class an `__init__` that puts the compiled one in its place."""

    def __init__(self, *args, **named):
        cls.__init__ = compiled = _init(cls, every, frozen, kw_only)
        compiled(self, *args, **named)

    cls.__init__ = __init__
    return cls


def _init(cls, every, frozen, kw_only):
    known = {"_MISSING": MISSING, "_set": object.__setattr__}
    parameters, body = ["self", "*"] if kw_only else ["self"], []
    for name, one in every.items():
        value = name
        if one.default is not MISSING:
            known[f"_default_{name}"] = one.default
            parameters.append(f"{name}=_default_{name}")
        elif one.default_factory is not MISSING:
            known[f"_default_{name}"] = one.default_factory
            parameters.append(f"{name}=_MISSING")
            value = f"_default_{name}() if {name} is _MISSING else {name}"
        else:
            parameters.append(name)
        body.append(f" _set(self, '{name}', {value})" if frozen else f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    exec(f"def __init__({', '.join(parameters)}):\n" + "\n".join(body or [" pass"]), known)
    made = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _compared(instance):
    return tuple(getattr(instance, name) for name, one in instance.__dataclass_fields__.items() if one.compare)


def _eq(self, other):
    if other.__class__ is not self.__class__:
        return NotImplemented
    return _compared(self) == _compared(other)


def _hash(self):
    return hash(_compared(self))


def _repr(self):
    shown = (f"{name}={getattr(self, name)!r}" for name, one in self.__dataclass_fields__.items() if one.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse_to_set(self, name, value):
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self, name):
    raise FrozenInstanceError(f"cannot delete field {name!r}")
