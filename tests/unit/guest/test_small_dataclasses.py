"""The guest's small `dataclasses`: each of the agent's classes made by it as the standard library makes it, its oracle."""

import dataclasses
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.unit.tree.test_imports import PID1, STANDARD


def _small() -> ModuleType:
    spec = importlib.util.spec_from_file_location("small_dataclasses", STANDARD / "dataclasses.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = _small()


def _classes() -> Iterator[type]:
    for name, _ in PID1:
        module = importlib.import_module(name)
        yield from (
            made for made in vars(module).values() if isinstance(made, type) and dataclasses.is_dataclass(made) and made.__module__ == name
        )


CLASSES = list(_classes())


def _remade(original: type) -> Any:
    """The same class as it was written, through the small module; of a base that is a dataclass, the original base."""
    params = original.__dataclass_params__  # type: ignore[attr-defined]
    own = original.__dict__
    made_by_module = (
        "__dataclass_fields__",
        "__dataclass_params__",
        "__init__",
        "__match_args__",
        "__slots__",
        "__getstate__",
        "__setstate__",
    )
    names = set(own.get("__annotations__", {}))
    generated = {n for n in ("__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__") if n in own and _is_generated(own[n])}
    namespace = {n: v for n, v in own.items() if n not in {*made_by_module, *names, *generated, "__dict__", "__weakref__"}}
    for one in dataclasses.fields(original):
        if one.name in names and _is_special(one):
            namespace[one.name] = SMALL.field(**_settings(one))
        elif one.name in names and one.default is not dataclasses.MISSING:
            namespace[one.name] = one.default
    written = type(original.__name__, original.__bases__, namespace)
    written.__qualname__ = original.__qualname__
    kw_only = any(one.kw_only for one in dataclasses.fields(original))
    return SMALL.dataclass(frozen=params.frozen, slots="__slots__" in own, kw_only=kw_only)(written)


def _is_generated(value: Any) -> bool:
    return value is None or getattr(getattr(value, "__code__", None), "co_filename", "<string>") in (
        "<string>",
        dataclasses.__file__,
        "reprlib",
    )


def _is_special(one: "dataclasses.Field[Any]") -> bool:
    return one.default_factory is not dataclasses.MISSING or not one.repr or not one.compare


def _settings(one: "dataclasses.Field[Any]") -> dict[str, Any]:
    settings: dict[str, Any] = {"repr": one.repr, "compare": one.compare}
    for name in ("default", "default_factory"):
        if getattr(one, name) is not dataclasses.MISSING:
            settings[name] = getattr(one, name)
    return settings


def _arguments(made: type) -> dict[str, Any]:
    """One for each field that has no default."""
    wanted = [one for one in dataclasses.fields(made) if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING]
    return {one.name: f"value {one.name}" for one in wanted}


def _construct(kind: Any, *arguments: Any, **named: Any) -> Any:
    """An object, or what its own check says of these arguments."""
    try:
        return kind(*arguments, **named)
    except (AttributeError, TypeError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.parametrize("original", CLASSES, ids=[f"{made.__module__}.{made.__qualname__}" for made in CLASSES])
def test_a_class_of_the_agent(original: type) -> None:
    small = _remade(original)
    arguments = _arguments(original)
    theirs, ours = _construct(original, **arguments), _construct(small, **arguments)
    assert _fails(lambda kind: kind(*arguments), small) == _fails(lambda kind: kind(*arguments), original)
    assert [one.name for one in SMALL.fields(small)] == [one.name for one in dataclasses.fields(original)]
    assert small.__match_args__ == original.__match_args__  # type: ignore[attr-defined]
    assert list(inspect.signature(small.__init__).parameters) == list(inspect.signature(original.__init__).parameters)  # type: ignore[misc]
    if isinstance(theirs, tuple):
        assert ours == theirs
        return
    assert repr(ours) == repr(theirs)
    assert all(getattr(ours, one.name) == getattr(theirs, one.name) for one in dataclasses.fields(original))
    assert (ours == small(**arguments)) == (theirs == original(**arguments))
    assert ours != theirs
    assert _fails(hash, ours) == _fails(hash, theirs)
    for one in dataclasses.fields(original):
        changed = _construct(SMALL.replace, ours, **{one.name: "changed"}), _construct(dataclasses.replace, theirs, **{one.name: "changed"})
        assert repr(changed[0]) == repr(changed[1])
        assert (changed[0] == ours) == (changed[1] == theirs)
        assert _fails(lambda made, name=one.name: setattr(made, name, 1), ours) == _fails(
            lambda made, name=one.name: setattr(made, name, 1), theirs
        )


def _fails(attempt: Any, made: Any) -> str | None:
    """The kind of error, by name: the small module's are its own."""
    try:
        attempt(made)
    except (AttributeError, TypeError) as error:
        return type(error).__name__
    return None


def test_there_are_classes() -> None:
    assert len(CLASSES) > 40


@SMALL.dataclass
class Plain:
    first: int
    second: list[int] = SMALL.field(default_factory=list)
    hidden: int = SMALL.field(default=3, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.third = self.first + 1


@SMALL.dataclass(frozen=True, slots=True)
class Base:
    first: int


@SMALL.dataclass(frozen=True, slots=True)
class Derived(Base):
    second: str = "two"


PLAIN: Any = Plain
BASE: Any = Base
DERIVED: Any = Derived


def test_without_slots() -> None:
    one, other = PLAIN(1), PLAIN(1, hidden=4)
    assert repr(one) == "Plain(first=1, second=[])"
    assert one == other
    assert one.second is not other.second
    assert (one.third, PLAIN.hidden, other.hidden) == (2, 3, 4)
    assert PLAIN.__hash__ is None


def test_a_derived_class() -> None:
    made = DERIVED(1)
    assert repr(made) == "Derived(first=1, second='two')"
    assert not hasattr(made, "__dict__")
    assert made != BASE(1)
    assert hash(made) == hash(DERIVED(1, "two"))
    with pytest.raises(SMALL.FrozenInstanceError, match="cannot assign to field 'first'"):
        made.first = 2


@pytest.mark.parametrize("arguments", [(), (1, 2, 3, 4)])
def test_wrong_arguments(arguments: tuple[int, ...]) -> None:
    with pytest.raises(TypeError, match=r"Plain.__init__\(\)"):
        PLAIN(*arguments)
