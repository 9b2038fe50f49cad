"""Nested settings: change dotted keys, merge settings, and flatten them."""

from collections.abc import Mapping
from typing import Any

from feinfn.errors import UserError


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
