"""Kinds of figures: the options that they share, and what they read and count alike."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.config import ModelConfig
from feinfn.errors import require_one_of
from feinfn.fields import Settings
from feinfn.metrics.label import LABELS
from mhiflab.plan.plan import Entry, Finished, Plan
from mhiflab.record.artifacts import FUSED, UPSAMPLED, metrics_of
from mhiflab.render.runs import networks, runs_of_one_seed, trained_feinfn

if TYPE_CHECKING:
    from feinfn.methods.feinfn.model import FeINFN

Drawing = tuple[Figure, pd.DataFrame]
"""A figure and the numbers behind it."""


@dataclass(frozen=True, kw_only=True)
class Kind(Settings, ABC):
    """A kind of figure; its fields are its options."""

    @abstractmethod
    def draw(self, plan: Plan) -> Drawing:
        """Return the figure and its numbers; raise `UserError` if the records lack the data."""


@dataclass(frozen=True, kw_only=True)
class Cases(Kind):
    """A figure of several cases."""

    cases: tuple[str, ...] = ()
    """Names of the cases in the order of drawing; empty: all of the study."""


@dataclass(frozen=True, kw_only=True)
class Images(Cases):
    """A figure of several cases' images."""

    seed: int | None = None
    """Seed of the runs; null: the study's first."""
    scene: str | None = None
    """Name of the test image; null: the first."""

    def methods(self, plan: Plan, upsampled: bool) -> list["MethodImage"]:
        """Return every case's result on the test image, by choice after the upsampled LR-HSI."""
        entries = runs_of_one_seed(plan, self.cases, self.seed)
        names = list(entries[0].run.images["scene"].unique())
        scene = names[0] if self.scene is None else self.scene
        require_one_of("option scene", scene, names, "a test image: ")
        shown = [(entries[0], UPSAMPLED)] * upsampled + [(entry, FUSED) for entry in entries]
        return [MethodImage(plan, entry, scene, method) for entry, method in shown]


@dataclass(frozen=True, kw_only=True)
class Network(Kind):
    """A figure of one trained network."""

    case: str | None = None
    """Name of the case; null: the first with the part that the figure shows."""
    seed: int | None = None
    """Seed of the run; null: the study's first."""

    def trained(
        self, plan: Plan, part: str, has: Callable[[ModelConfig], bool] = lambda _: True
    ) -> tuple[Finished, "FeINFN"]:
        """Return the run and its network; raise `UserError` if the case, or each, lacks `part`."""
        fitting = networks(plan, part, has)
        (entry,) = runs_of_one_seed(plan, [self.case or fitting[0]], self.seed)
        require_one_of("option case", entry.trial.case, fitting, f"a FeINFN with {part}: ")
        return entry, trained_feinfn(entry)


@dataclass(frozen=True)
class MethodImage:
    """One test image as a run's network fuses it, or as upsampling gives it."""

    plan: Plan
    entry: Finished
    scene: str
    method: str
    """`FUSED` or `UPSAMPLED`."""

    @property
    def rgb(self) -> np.ndarray:
        """The image in pseudo-RGB, uint8 [H, W, 3]."""
        return self.entry.run.arrays[f"{self.scene}/{self.method}/rgb"]

    def error(self, name: str = "error") -> np.ndarray | None:
        """Return a map of errors [H, W]; None without a reference."""
        return self.entry.run.arrays.get(f"{self.scene}/{self.method}/{name}")

    @property
    def values(self) -> dict[str, Any]:
        """The metrics of the image, with the columns that identify them."""
        columns = run_columns(self.plan, self.entry, self.method)
        means = self.entry.run.means(self.scene, self.method)
        return columns | {"scene": self.scene, "method": self.method} | dict(means)

    @property
    def note(self) -> str:
        """The first two metrics on two lines, with their units or names."""
        values = self.values
        lines = []
        for name in metrics_of(values["convention"])[:2]:
            label, number = LABELS[name], f"{values[name]:.{LABELS[name].digits}f}"
            lines.append(f"{number}{label.sign}" if label.sign else f"{label.name} {number}")
        return "\n".join(lines)


def run_columns(plan: Plan, entry: Entry, method: str = FUSED) -> dict[str, Any]:
    """Return the columns that identify a run, or its upsampled LR-HSI, in a figure's numbers."""
    trial = entry.trial
    label = plan.labels[trial.case] if method == FUSED else plan.upsampled_label
    return {"label": label, "case": trial.case, "seed": trial.spec.seed, "run_key": entry.key}
