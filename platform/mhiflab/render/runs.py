"""Finished runs of a study, as tables and figures choose and combine them.

Numbers, artifacts and histories come from the record alone (`record.finished.RecordedRun`).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from feinfn.config import ModelConfig
from feinfn.errors import UserError, require_one_of
from feinfn.protocols.protocol import Protocol
from mhiflab.plan.plan import Entry, Finished, Plan
from mhiflab.record.artifacts import FUSED, SAME_IMAGE, UPSAMPLED, metrics_of, usual_convention

if TYPE_CHECKING:
    # Tables need no torch.
    from feinfn.methods.feinfn.model import FeINFN


@dataclass(frozen=True)
class Results:
    """Per-image metrics of a study's finished runs: one row per case, seed, scene and method."""

    plan: Plan
    images: pd.DataFrame
    convention: str

    @property
    def protocol(self) -> Protocol:
        """The protocol of all runs."""
        return self.plan.entries[0].trial.spec.protocol

    @property
    def metrics(self) -> list[str]:
        """The printed metrics of the table's convention."""
        return list(metrics_of(self.convention))

    @property
    def scenes(self) -> list[str]:
        """The test images."""
        return sorted(self.images["scene"].unique())

    def fused(self) -> pd.DataFrame:
        """Return the fused images alone, with the case's label as `method`.

        Trials without training have no seed (NaN).
        """
        rows = self.images[self.images["method"] == FUSED]
        trained = {e.trial.case: e.trial.spec.trained for e in self.plan.entries}
        seeds = rows["seed"].where(rows["case"].map(trained).astype(bool))
        return rows.assign(method=rows["case"].map(self.plan.labels), seed=seeds)

    def upsampled(self) -> pd.DataFrame:
        """Return the metrics of the upsampled LR-HSI, one row per scene, without seeds.

        The numbers are those of the run whose key comes first. Raises `UserError` if two runs
        disagree by more than the rounding of devices.
        """
        rows = self.images[self.images["method"] == UPSAMPLED]
        of_run = {(e.trial.case, e.trial.spec.seed): e for e in self.plan.finished}
        runs = [of_run[at] for at in zip(rows["case"], rows["seed"], strict=True)]
        rows = rows.assign(key=[e.key for e in runs], who=[e.who for e in runs])
        by_scene = rows.sort_values(["scene", "key"], kind="stable").groupby("scene")
        for scene, scene_rows in by_scene:
            values_RM = scene_rows[self.metrics].to_numpy()
            first_M = values_RM[0]
            sizes_M = np.nan_to_num(abs(first_M), posinf=0)
            allowed_M = SAME_IMAGE * np.maximum(sizes_M, 1)
            differing_RM = ~np.isclose(values_RM, first_M, rtol=0, atol=allowed_M, equal_nan=True)
            if differing_RM.any():
                at, metric = np.argwhere(differing_RM)[0]
                (who, key), (other, other_key) = scene_rows[["who", "key"]].to_numpy()[[0, at]]
                raise UserError(
                    f"{scene}: {self.metrics[metric]} of the upsampled LR-HSI: found "
                    f"{first_M[metric]:.6g} in the run of {who} ({key[:12]}) and "
                    f"{values_RM[at, metric]:.6g} in that of {other} ({other_key[:12]}), expected "
                    "the same of one scene and protocol; delete the run that was made from other "
                    "pixels and run the study again with --repeat-lost"
                )
        return by_scene.head(1)[["scene", *self.metrics]].reset_index(drop=True)


def collect(plan: Plan, convention: str | None = None, partial: bool = False) -> Results:
    """Read the per-image metrics of all trials, in one convention.

    The default is the usual convention, or for real pairs without reference the one that needs
    none. Raises `UserError` if a run is missing and `partial` is false, if no run is finished, if
    trials differ in protocol or test scenes, or if a run has no numbers in the convention.
    """
    done = plan.finished if partial and plan.finished else plan.complete()
    comparable(plan, plan.entries, "table", "make one study for each")
    images = pd.concat(
        [e.run.images.assign(case=e.trial.case, seed=e.trial.spec.seed) for e in done],
        ignore_index=True,
    )
    convention = convention or usual_convention(images)
    among = f"one that the runs of {plan.path} were evaluated in: "
    require_one_of("--convention", convention, images["convention"].unique(), among)
    selected = images[images["convention"] == convention].reset_index(drop=True)
    counts = selected.groupby(["case", "seed"]).size()
    if counts.nunique() != 1 or len(counts) != len(images.groupby(["case", "seed"])):
        raise UserError(
            f"{plan.path}: not every run has all its images in convention {convention}; run the "
            "study again, or use another convention"
        )
    return Results(plan, selected, convention)


def comparable(plan: Plan, entries: Sequence[Entry], what: str, remedy: str) -> None:
    """Raise `UserError` if trials of one table or figure differ in protocol or test scenes."""
    specs = [entry.trial.spec for entry in entries]
    protocols = {s.protocol.hash(): s.protocol.name for s in specs}
    differing = {
        "protocols": [f"{name} ({digits[:8]})" for digits, name in protocols.items()],
        "test scenes": list(dict.fromkeys(", ".join(s.data.test) for s in specs)),
    }
    for quantity, values in differing.items():
        if len(values) > 1:
            raise UserError(
                f"{plan.path}: one {what} cannot mix {quantity}, found {' and '.join(values)}; "
                f"{remedy}"
            )


def chosen_entries(
    plan: Plan, cases: Sequence[str] = (), seeds: Collection[int] = ()
) -> list[Entry]:
    """Return the trials of cases in their order and of seeds, by default of all.

    Raises `UserError` if a case or seed is unknown.
    """
    for case in cases:
        require_one_of("option cases", case, plan.labels, f"cases of {plan.path}: ")
    known_seeds = dict.fromkeys(str(entry.trial.spec.seed) for entry in plan.entries)
    for seed in seeds:
        require_one_of("option seed", str(seed), known_seeds, f"seeds of {plan.path}: ")
    return [
        entry
        for case in dict.fromkeys(cases or plan.labels)
        for entry in plan.entries
        if entry.trial.case == case and (not seeds or entry.is_of(seeds))
    ]


def comparable_runs(
    plan: Plan, cases: Sequence[str] = (), seeds: Collection[int] = ()
) -> list[Finished]:
    """Return the finished runs of cases and seeds, by default of all, for one figure.

    Raises `UserError` if a case or seed is unknown, if a run is missing, or if protocols or test
    scenes differ.
    """
    runs = plan.complete(chosen_entries(plan, cases, seeds))
    comparable(plan, runs, "figure", "choose cases that share them: --option cases=[...]")
    return runs


def runs_of_one_seed(plan: Plan, cases: Sequence[str], seed: int | None) -> list[Finished]:
    """Return one run per case as `comparable_runs` does, by default of the study's first seed."""
    return comparable_runs(plan, cases, [plan.entries[0].trial.spec.seed if seed is None else seed])


def networks(
    plan: Plan, part: str = "a decoder", has: Callable[[ModelConfig], bool] = lambda _: True
) -> list[str]:
    """Return the cases that are a FeINFN with some part; raise `UserError` if there is none."""
    specs = {entry.trial.case: entry.trial.spec for entry in plan.entries}
    fitting = [c for c, s in specs.items() if isinstance(s.model, ModelConfig) and has(s.model)]
    if not fitting:
        raise UserError(
            f"{plan.path}: found no case that is a FeINFN with {part}, expected one, into which "
            "this figure looks; choose another study"
        )
    return fitting


def trained_feinfn(entry: Finished) -> "FeINFN":
    """Return a run's trained network; raise `UserError` if it is not a FeINFN."""
    from feinfn.methods.feinfn.model import FeINFN

    config = entry.trial.spec.model
    if isinstance(config, ModelConfig) and isinstance(network := entry.run.network, FeINFN):
        return network
    raise UserError(
        f"case {entry.trial.case}: found {type(config).__name__}, expected a FeINFN, into whose "
        "parts this figure looks; choose other cases: --option cases=[...]"
    )
