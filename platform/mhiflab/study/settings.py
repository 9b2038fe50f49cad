"""Nested settings: change dotted keys, merge settings, and flatten them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from feinfn.errors import UserError
from feinfn.methods.configs import FEINFN, LEARNED
from feinfn.physics import Bands, Physics


def model_name(settings: Mapping[str, Any]) -> Any:
    """Return the name of the model in settings that may be invalid still."""
    model = settings.get("model", {})
    return model.get("name", FEINFN) if isinstance(model, Mapping) else FEINFN


def inherited(settings: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that hold for the model that a case's changes name.

    If it is another model than that of the settings, a learned one inherits the physics of another
    learned one; otherwise only the numbers of bands are inherited.
    """
    before = model_name(settings)
    name, model = changes.get("model.name", before), settings.get("model", {})
    if name == before or not isinstance(model, Mapping):
        return settings
    shared = {f.name for f in fields(Physics if name in LEARNED and before in LEARNED else Bands)}
    return {**settings, "model": {k: v for k, v in model.items() if k in shared}}


def with_keys(settings: dict[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings with several dotted keys changed.

    Raise `UserError` if a key leads through something that holds no keys.
    """
    for key, value in changes.items():
        settings = _with_key(settings, key, value, where)
    return settings


def _with_key(settings: dict[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    if not rest:
        return {**settings, head: value}
    inner = settings.get(head, {})
    if head == "protocol" and isinstance(inner, str):
        inner = {"preset": inner}
    if not isinstance(inner, Mapping):
        raise UserError(f"{where}: key {key!r} leads through {head!r}, which holds no keys")
    return {**settings, head: _with_key(dict(inner), rest, value, where)}


def merged_settings(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return two settings merged key by key; `over` wins."""
    merged = dict(under)
    for key, value in over.items():
        lower = merged.get(key)
        if isinstance(value, Mapping) and key == "protocol" and isinstance(lower, str):
            lower = {"preset": lower}
        nested = isinstance(lower, Mapping) and isinstance(value, Mapping)
        # A preset replaces its whole section.
        nested = nested and "preset" not in value
        merged[key] = merged_settings(lower, value) if nested else value  # type: ignore[arg-type]
    return merged


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
