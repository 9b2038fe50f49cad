"""Splits: scenes that train, validate and test, published or from a user's JSON file."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from feinfn.errors import UserError

PARTS = ("train", "validation", "test")
VALIDATION_STEP = 7
"""Every so many training scenes of a published split, one validates."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Three disjoint lists of scene names."""

    name: str
    source: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise `UserError` if a scene occurs twice, or if there is none."""
        seen: dict[str, str] = {}
        for part in PARTS:
            for scene in getattr(self, part):
                if scene in seen:
                    raise UserError(
                        f"split {self.name}: found scene {scene!r} in {seen[scene]} and in {part}, "
                        "expected every scene once; take it out of one of them"
                    )
                seen[scene] = part
        if not seen:
            raise UserError(f"split {self.name}: found no scenes, expected at least one")

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return part -> scene names."""
        return {part: getattr(self, part) for part in PARTS}


def _published(name: str, source: str, train: list[str], test: list[str]) -> Split:
    """Return a published split with a validation part, so that nothing is chosen on test scenes.

    Validation takes the first training scene by name and every 7th after it (3 of 20).
    """
    validation = tuple(sorted(train)[::VALIDATION_STEP])
    rest = tuple(scene for scene in train if scene not in validation)
    return Split(name=name, source=source, train=rest, validation=validation, test=tuple(test))


SPLITS = {
    name: _published(name, **entry)
    for name, entry in json.loads(
        files("feinfn").joinpath("data/splits.json").read_text(encoding="utf-8")
    ).items()
}


def read_split(name_or_file: str) -> Split:
    """Return an embedded split by name, or read a JSON file {train, validation, test}.

    Raises `UserError` for an unknown name, an invalid JSON file, or a scene in two parts.
    """
    if name_or_file in SPLITS:
        return SPLITS[name_or_file]
    path = Path(name_or_file)
    if path.suffix != ".json":
        raise UserError(
            f"split {name_or_file!r}: unknown, expected one of {', '.join(SPLITS)}, or a JSON "
            "file with the lists train, validation and test"
        )
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a JSON split ({error})") from None
    good = (
        isinstance(lists, dict)
        and set(lists) == set(PARTS)
        and all(isinstance(v, list) and all(isinstance(n, str) for n in v) for v in lists.values())
    )
    if not good:
        found = sorted(lists) if isinstance(lists, dict) else type(lists).__name__
        raise UserError(
            f"{path}: found {found}, expected exactly the keys train, validation and test, each a "
            "list of scene names"
        )
    return Split(name=str(path), source="a file", **{k: tuple(v) for k, v in lists.items()})
