"""Fields of typed settings: bounds beside each field, checked and worded in one place.

@dataclass(frozen=True, kw_only=True)
class Resources(Settings, section="resources"):
    workers: Natural = 1
    memory_mib: Positive | None = None
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from feinfn.errors import require


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Bounds of a number, which is finite in any case."""

    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf

    def holds(self, value: float) -> bool:
        """Return True if a number is finite and within the bounds."""
        return math.isfinite(value) and self.ge <= value <= self.le and self.gt < value < self.lt

    def words(self, noun: str) -> str:
        """Return a noun with the bounds behind it."""
        signs = {">=": self.ge, ">": self.gt, "<=": self.le, "<": self.lt}
        limits = [f"{sign} {n:g}" for sign, n in signs.items() if math.isfinite(n)]
        return f"{noun} {' and '.join(limits)}" if limits else f"finite {noun}"


@dataclass(frozen=True, kw_only=True)
class Items:
    """Bounds of a list: its length, and if every item is another."""

    least: int = 1
    distinct: bool = False

    def holds(self, values: Sequence[Any]) -> bool:
        """Return True if a list is long enough and repeats nothing that must not repeat."""
        different = len({repr(value) for value in values})
        return len(values) >= self.least and (not self.distinct or different == len(values))

    def words(self, noun: str) -> str:
        """Return a noun with the bounds behind it."""
        return f"{noun}, at least {self.least}" + ", all different" * self.distinct


Natural = Annotated[int, Bound(ge=0)]
Count = Annotated[int, Bound(ge=1)]
Counts = Annotated[tuple[Count, ...], Items()]
Finite = Annotated[float, Bound()]
NonNegative = Annotated[float, Bound(ge=0)]
Positive = Annotated[float, Bound(gt=0)]

NOUNS = {int: "integer", float: "number", str: "text", Any: "any value"}


def noun_of(hint: Any, many: bool) -> str:
    """Return the words for a type without parts."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    return NOUNS[hint] + "s" * many if hint in NOUNS else getattr(hint, "__name__", str(hint))


def words(hint: Any, noun: Callable[[Any, bool], str] = noun_of, many: bool = False) -> str:
    """Return a type in words: `integer >= 1`, `list of 2 numbers >= 0 and < 1`, `text, or null`.

    `noun` words the types without parts, in the plural if its second argument is true.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        text = words(arguments[0], noun, many)
        for bound in hint.__metadata__:
            text = bound.words(text)
        return text
    if origin in (Union, UnionType):
        text = " or ".join(words(one, noun) for one in arguments if one is not NoneType)
        return f"{text}, or null" if NoneType in arguments else text
    if origin in (tuple, list):
        size = f"{len(arguments)} " if origin is tuple and arguments[-1] is not Ellipsis else ""
        return f"list of {size}{words(arguments[0], noun, many=True)}"
    return noun(hint, many)


def _fits(value: Any, hint: Any) -> bool:
    """Return True if a value is within the bounds and choices of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0]) and all(one.holds(value) for one in hint.__metadata__)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin in (tuple, list):
        if not isinstance(value, tuple | list):
            return False
        if origin is list or arguments[-1] is Ellipsis:
            return all(_fits(one, arguments[0]) for one in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    kinds: dict[Any, type] = {int: Integral, float: Real, NoneType: NoneType}
    return isinstance(value, kinds.get(hint, object))


def check(field: str, value: Any, hint: Any) -> None:
    """Raise `UserError`, which names the field, unless a value fits a type and its bounds."""
    if get_origin(hint) is dict:
        for key, one in value.items():
            check(f"{field}.{key}", one, get_args(hint)[1])
        return
    text = words(hint)
    article = "" if text.startswith("one of") else "an " if text[0] in "aeio" else "a "
    require(_fits(value, hint), field, value, article + text)


def _is_bounded(hint: Any) -> bool:
    return get_origin(hint) in (Annotated, Literal) or any(map(_is_bounded, get_args(hint)))


@cache
def bounded_fields(kind: Any) -> Mapping[str, Any]:
    """Return the types of those fields of a dataclass that have bounds or choices."""
    hints = get_type_hints(kind, include_extras=True)
    return {one.name: hints[one.name] for one in fields(kind) if _is_bounded(hints[one.name])}


def check_fields(value: Any, section: str = "") -> None:
    """Raise `UserError`, which names section and field, unless all fields are in bounds."""
    kind: Any = type(value)
    for name, hint in bounded_fields(kind).items():
        check(f"{section}.{name}" if section else name, getattr(value, name), hint)


class Settings:
    """Base of typed settings; `section` stands before the names of fields in errors."""

    # Read by pydantic if it is installed: unknown keys and wrong types are errors.
    __pydantic_config__: ClassVar[dict] = {"extra": "forbid", "strict": True}
    section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str | None = None) -> None:
        super().__init_subclass__()
        if section is not None:
            cls.section = section

    def __post_init__(self) -> None:
        """Raise `UserError` unless all fields are in bounds; subclasses add relations."""
        check_fields(self, self.section)
