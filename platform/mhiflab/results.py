"""Per-image numbers of a study's finished runs, read from the record and from nothing else."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from feinfn.errors import UserError, nearest
from feinfn.metrics.conventions import CONVENTION
from feinfn.protocols.simulate import Protocol
from mhiflab.plan.plan import Entry, Plan, labels_of, upsampled_label
from mhiflab.record.artifacts import (
    FUSED,
    SAME_IMAGE,
    UPSAMPLED,
    WITHOUT_REFERENCE,
    metrics_of,
    read_images,
)
from mhiflab.record.store import IMAGES_FILE, Store, artifact_file


@dataclass(frozen=True)
class Results:
    """Per-image metrics of a study's finished runs: one row per case, seed, scene and method."""

    images: pd.DataFrame
    convention: str
    protocol: Protocol
    entries: tuple[Entry, ...]
    """All trials of the study, in the order of the file."""

    @property
    def done(self) -> list[Entry]:
        """The trials whose numbers these are."""
        return [entry for entry in self.entries if entry.state == "done"]

    @property
    def labels(self) -> dict[str, str]:
        """Every case's name in tables, in the order of the file; no two are equal."""
        return labels_of(self.entries)

    @property
    def suffix(self) -> str:
        """What files of another convention than the usual one are named by."""
        return "" if self.convention == CONVENTION else f"-{self.convention}"

    @property
    def metrics(self) -> list[str]:
        """The printed metrics of the table's convention."""
        return list(metrics_of(self.convention))

    @property
    def upsampled_label(self) -> str:
        """The row name of the upsampled LR-HSI."""
        return upsampled_label(self.entries)

    @property
    def scenes(self) -> list[str]:
        """The test images."""
        return sorted(self.images["scene"].unique())

    def fused(self) -> pd.DataFrame:
        """Return the fused images alone, with the case's label as `method`.

        Trials that are not trained have no seed (NaN).
        """
        rows = self.images[self.images["method"] == FUSED]
        trained = {e.trial.case: e.trial.spec.trained for e in self.entries}
        seeds = rows["seed"].where(rows["case"].map(trained).astype(bool))
        return rows.assign(method=rows["case"].map(self.labels), seed=seeds)

    def upsampled(self) -> pd.DataFrame:
        """Return the metrics of the upsampled LR-HSI, one row a scene, no seed.

        Numbers are those of the run whose key comes first. Runs of one protocol must agree on them
        but for what two devices make of it; raises `UserError` if they do not.
        """
        rows = self.images[self.images["method"] == UPSAMPLED]
        of_run = {(e.trial.case, e.trial.spec.seed): e for e in self.done}
        runs = [of_run[at] for at in zip(rows["case"], rows["seed"], strict=True)]
        rows = rows.assign(key=[e.key for e in runs], who=[e.who for e in runs])
        by_scene = rows.sort_values(["scene", "key"], kind="stable").groupby("scene")
        for scene, found in by_scene:
            values_RM = found[self.metrics].to_numpy()
            first_M = values_RM[0]
            sizes_M = np.nan_to_num(abs(first_M), posinf=0)
            allowed_M = SAME_IMAGE * np.maximum(sizes_M, 1)
            other_RM = ~np.isclose(values_RM, first_M, rtol=0, atol=allowed_M, equal_nan=True)
            if other_RM.any():
                at, metric = np.argwhere(other_RM)[0]
                (who, key), (other, other_key) = found[["who", "key"]].to_numpy()[[0, at]]
                raise UserError(
                    f"{scene}: {self.metrics[metric]} of the upsampled LR-HSI: found "
                    f"{first_M[metric]:.6g} in the run of {who} ({key[:12]}) and "
                    f"{values_RM[at, metric]:.6g} in that of {other} ({other_key[:12]}), expected "
                    "the same of one scene and protocol; delete the run that was made from other "
                    "pixels and run the study again"
                )
        return by_scene.head(1)[["scene", *self.metrics]].reset_index(drop=True)


def collect(
    plan: Plan, store: Store, convention: str | None = None, partial: bool = False
) -> Results:
    """Read the per-image tables of all trials from the record, in one metric convention.

    By default the usual one, or for real pairs without reference the one that needs none. Raises
    `UserError` if a trial has no finished run (unless `partial`; some must have one), if protocols
    are mixed, or if a run has no numbers in this convention.
    """
    done = plan.finished.entries
    if not partial or not done:
        plan.refuse_missing()
    test_sets = {entry.trial.spec.data.test for entry in plan.entries}
    if len(test_sets) != 1:
        raise UserError(
            f"{plan.path}: one table cannot mix test scenes, found {sorted(test_sets)}; use one "
            "data.test for all cases"
        )
    protocols = {e.trial.spec.protocol.hash(): e.trial.spec.protocol for e in plan.entries}
    if len(protocols) != 1:
        names = ", ".join(f"{p.name} ({key[:8]})" for key, p in protocols.items())
        raise UserError(
            f"{plan.path}: one table cannot mix protocols, found {names}; make one study for each"
        )
    frames = []
    for entry in done:
        assert entry.run is not None, "a done entry has a run"
        with artifact_file(store, entry.run.info.run_id, IMAGES_FILE) as path:
            frame = read_images(path)
        frames.append(frame.assign(case=entry.trial.case, seed=entry.trial.spec.seed))
    images = pd.concat(frames, ignore_index=True)
    images, convention = _in_convention(images, convention, plan)
    return Results(images, convention, plan.entries[0].trial.spec.protocol, plan.entries)


def _in_convention(
    images: pd.DataFrame, convention: str | None, plan: Plan
) -> tuple[pd.DataFrame, str]:
    found = list(images["convention"].unique())
    if convention is None:
        convention = CONVENTION if CONVENTION in found else WITHOUT_REFERENCE
    if convention not in found:
        raise UserError(
            f"--convention: found {convention!r}, {nearest(convention, found)}expected one that "
            f"the runs of {plan.path} were evaluated in: " + ", ".join(found)
        )
    chosen = images[images["convention"] == convention].reset_index(drop=True)
    counts = chosen.groupby(["case", "seed"]).size()
    if counts.nunique() != 1 or len(counts) != len(images.groupby(["case", "seed"])):
        raise UserError(
            f"{plan.path}: not every run has all its images in convention {convention}; run the "
            "study again, or use another convention"
        )
    return chosen, convention
