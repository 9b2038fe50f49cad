"""Fields: bounds declared beside them hold for every settings class, and are said in words."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest

from feinfn.config import ModelConfig, TrainConfig
from feinfn.errors import UserError
from feinfn.fields import Bound, Counts, Items, Natural, Positive, Settings, bounded_fields, words
from feinfn.methods.configs import ClassicalConfig
from feinfn.methods.registry import MODELS
from feinfn.protocols.named import PROTOCOLS

EXAMPLES = [
    *(one.config_type() for one in MODELS.values()),
    ClassicalConfig(name="gsa"),
    TrainConfig(clip_norm=1.0, ema_decay=0.5),
    replace(PROTOCOLS["cave_x4"], hsi_snr_db=30.0, msi_bits=8),
]


def outside(value: Any, hint: Any) -> Any:
    """Return a value out of the bounds of a type, of the same kind as `value`."""
    if get_origin(hint) is Annotated:
        bound = hint.__metadata__[0]
        if isinstance(bound, Items):
            return ()
        return -1 if bound.ge == 0 else bound.ge - 1 if bound.ge > -1e9 else float("nan")
    if get_origin(hint) is Literal:
        return "nothing"
    if get_origin(hint) is tuple:
        return (outside(value[0], get_args(hint)[0]), *value[1:])
    return outside(value, get_args(hint)[0])


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda config: type(config).__name__)
def test_every_declared_bound_is_checked_and_named(config):
    hints = bounded_fields(type(config))
    assert hints
    for name, hint in hints.items():
        wrong = outside(getattr(config, name), hint)
        with pytest.raises(UserError, match=r"found .*, expected") as caught:
            replace(config, **{name: wrong})
        assert caught.value.field == f"{config.section}.{name}"


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig, type(PROTOCOLS["cave_x4"])])
def test_all_numbers_of_the_science_have_bounds(kind):
    free = {one.name for one in fields(kind) if one.type in (int, float)}
    assert free == set()


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (Natural, "integer >= 0"),
        (Positive | None, "number > 0, or null"),
        (Annotated[float, Bound()], "finite number"),
        (tuple[Annotated[float, Bound(ge=0, lt=1)], float], "list of 2 numbers >= 0 and < 1"),
        (Counts, "list of integers >= 1, at least 1"),
        (
            Annotated[list[Any], Items(distinct=True)],
            "list of any values, at least 1, all different",
        ),
        (Literal[1, 3], "one of 1, 3"),
        (float | tuple[float, ...], "number or list of numbers"),
    ],
)
def test_types_are_said_in_words(hint, text):
    assert words(hint) == text


@dataclass(frozen=True, kw_only=True)
class Places(Settings, section="places"):
    seeds: Annotated[tuple[Natural, ...], Items(distinct=True)] = (1,)
    by_name: dict[str, Counts]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 1)}, r"^places.seeds: found \(1, 1\), expected a list of integers >= 0"),
        ({"seeds": (1, -1)}, r"^places.seeds: found \(1, -1\)"),
        ({"seeds": (float("inf"),)}, "^places.seeds: found"),
        ({"by_name": {"good": (1,), "bad": (0,)}}, r"^places.by_name.bad: found \(0,\)"),
    ],
)
def test_lists_and_mappings_are_checked_item_by_item(changes, message):
    with pytest.raises(UserError, match=message):
        Places(**({"by_name": {}} | changes))
