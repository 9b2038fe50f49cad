"""The interface of a kind of figure: its options, and what drawing one returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from feinfn.config import STRICT
from mhiflab.plan.plan import Entry, upsampled_label
from mhiflab.record.artifacts import FUSED, metrics_of
from mhiflab.render.metrics import METRICS
from mhiflab.render.runs import Recorded

UNITS = {"psnr": " dB", "sam": "°"}


@dataclass(frozen=True)
class Drawn:
    """A figure and the numbers behind it."""

    figure: Figure
    numbers: pd.DataFrame


@dataclass(frozen=True)
class Kind:
    """A kind of figure: the options it takes, and how it is drawn from records."""

    options: type[Any]
    draw: Callable[[Recorded, Any], Drawn]


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Options of figures of several cases."""

    __pydantic_config__: ClassVar[dict] = STRICT

    cases: tuple[str, ...] = ()
    """Names of the cases, in the order they are drawn; none: all of the study."""


@dataclass(frozen=True, kw_only=True)
class Images(Cases):
    """Options of figures of several cases' images."""

    seed: int | None = None
    """Seed whose runs are drawn; null: the study's first."""
    scene: str | None = None
    """Test image; null: the first."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Options of figures of one trained network."""

    __pydantic_config__: ClassVar[dict] = STRICT

    case: str | None = None
    """Name of the case; null: the first that has what the figure looks into."""
    seed: int | None = None
    """Seed whose run is drawn; null: the study's first."""


def note(values: Mapping[str, Any]) -> str:
    """Return the first two metrics of an image on two lines, by their units or names."""
    names = metrics_of(values["convention"])[:2]
    shown = ((METRICS[m], m, f"{values[m]:.{METRICS[m].digits}f}") for m in names)
    return "\n".join(f"{x}{UNITS[m]}" if m in UNITS else f"{one.name} {x}" for one, m, x in shown)


def about(entry: Entry, label: str) -> dict[str, Any]:
    """Return what tells a run's numbers from others."""
    trial = entry.trial
    return {"label": label, "case": trial.case, "seed": trial.spec.seed, "run_key": entry.key}


def row_of(recorded: Recorded, entry: Entry, scene: str, method: str = FUSED) -> dict[str, Any]:
    """Return one test image's metrics of a run beside what identifies them."""
    fused = method == FUSED
    label = recorded.labels[entry.trial.case] if fused else upsampled_label(recorded.plan.entries)
    told = about(entry, label) | {"scene": scene, "method": method}
    return told | dict(recorded.means(entry, scene, method))
