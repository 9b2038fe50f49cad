"""Finished runs of a study as tables and figures read them.

Per-image numbers, artifacts and histories come from the record and from nothing else.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from feinfn.config import ModelConfig
from feinfn.errors import UserError, nearest
from feinfn.files import BEST
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.weights import load_model
from feinfn.metrics.conventions import CONVENTION
from feinfn.protocols.simulate import Inputs, Pair, Protocol
from mhiflab.plan.plan import Entry, Plan, labels_of, upsampled_label
from mhiflab.record.artifacts import (
    FUSED,
    SAME_IMAGE,
    UPSAMPLED,
    WINDOW_STEPS,
    WITHOUT_REFERENCE,
    Pictures,
    metrics_of,
    read_images,
)
from mhiflab.record.store import IMAGES_FILE, QUICKLOOK_FILE, Store, artifact_file, metric_history


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


T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """The middle of a run's first test image with all bands, in [0, 1]."""

    scene: str
    place: tuple[int, int]
    """Its first row and column in the image."""
    inputs: Inputs
    """A `Pair` where the image has a reference; batch of one."""
    fused_SHW: np.ndarray
    wavelengths_nm: np.ndarray | None

    def pair(self, who: str) -> Pair:
        """Return the inputs with their reference; raise `UserError` where there is none."""
        if isinstance(self.inputs, Pair):
            return self.inputs
        raise UserError(
            f"{who}: found no reference of test image {self.scene}, expected one, which this "
            "figure compares with; choose a study of simulated pairs"
        )


@dataclass(frozen=True)
class Recorded:
    """A plan with its runs, the store that holds them, and what was read of them so far."""

    plan: Plan
    store: Store
    _read: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def labels(self) -> dict[str, str]:
        """Every case's label; two cases of one label are told apart by their names."""
        return labels_of(self.plan.entries)

    def entries(self, cases: Sequence[str] = (), seed: int | None = None) -> list[Entry]:
        """Return the finished runs of cases (none given: all) in their order, of one seed or all.

        Raises `UserError` for an unknown case or seed, and where a run is missing.
        """
        known = self.labels
        for case in cases:
            if case not in known:
                raise UserError(
                    f"{self.plan.path}: option cases: found {case!r}, {nearest(case, known)}"
                    "expected cases of this study: " + ", ".join(known)
                )
        seeds = list(dict.fromkeys(entry.trial.spec.seed for entry in self.plan.entries))
        if seed is not None and seed not in seeds:
            raise UserError(
                f"{self.plan.path}: option seed: found {seed}, expected one of "
                + ", ".join(map(str, seeds))
            )
        chosen = [
            entry
            for case in dict.fromkeys(cases or known)
            for entry in self.plan.entries
            if entry.trial.case == case
            # What is not trained has one run for all seeds.
            and (seed in (None, entry.trial.spec.seed) or not entry.trial.spec.trained)
        ]
        missing = [entry.who for entry in chosen if entry.state != "done"]
        if missing:
            raise UserError(
                f"{self.plan.path}: {len(missing)} of the figure's {len(chosen)} runs are missing "
                f"({'; '.join(missing[:4])}); execute them first: mhiflab run {self.plan.command}"
            )
        return chosen

    def of_one_seed(self, cases: Sequence[str] = (), seed: int | None = None) -> list[Entry]:
        """Return one finished run a case: of a seed, by default the study's first.

        Raises `UserError` as `entries` does, and for cases of several protocols or test sets.
        """
        seed = self.plan.entries[0].trial.spec.seed if seed is None else seed
        return self.comparable(self.entries(cases, seed))

    def comparable(self, entries: list[Entry]) -> list[Entry]:
        """Return runs that one figure may show together; raise `UserError` for others."""
        specs = [entry.trial.spec for entry in entries]
        differing = {
            "protocols": {s.protocol.hash(): s.protocol.name for s in specs}.values(),
            "test scenes": {s.data.test: ", ".join(s.data.test) for s in specs}.values(),
        }
        for what, found in differing.items():
            if len(found) > 1:
                raise UserError(
                    f"{self.plan.path}: one figure cannot mix {what}, found "
                    f"{' and '.join(found)}; choose cases that share them: --option cases=[...]"
                )
        return entries

    def networks(
        self, part: str = "a decoder", has: Callable[[ModelConfig], bool] = lambda _: True
    ) -> list[str]:
        """Return the cases that are a FeINFN with some part; raise `UserError` where none is."""
        specs = {entry.trial.case: entry.trial.spec for entry in self.plan.entries}
        found = [c for c, s in specs.items() if isinstance(s.model, ModelConfig) and has(s.model)]
        if not found:
            raise UserError(
                f"{self.plan.path}: found no case that is a FeINFN with {part}, expected one, into "
                "which this figure looks; choose another study"
            )
        return found

    def network_entry(
        self,
        case: str | None,
        seed: int | None,
        part: str = "a decoder",
        has: Callable[[ModelConfig], bool] = lambda _: True,
    ) -> Entry:
        """Return the finished run of a case, by default of the first that is a FeINFN with a part.

        Raises `UserError` where the case, or every case, lacks it.
        """
        fitting = self.networks(part, has)
        entry = self.of_one_seed([case or fitting[0]], seed)[0]
        if entry.trial.case not in fitting:
            raise UserError(
                f"{self.plan.path}: option case: found {case!r}, which is no FeINFN with {part}, "
                "expected one of " + ", ".join(fitting)
            )
        return entry

    def _once(self, entry: Entry, name: str, read: Callable[[Path], T]) -> T:
        """Return what `read` makes of an artifact, read once."""
        assert entry.run is not None, "a done entry has a run"
        key = (entry.run.info.run_id, name)
        if key not in self._read:
            with artifact_file(self.store, key[0], name) as path:
                self._read[key] = read(path)
        return self._read[key]

    def arrays(self, entry: Entry) -> Mapping[str, np.ndarray]:
        """Return the arrays of a run's pictures, unpacked when asked for (see `scores.Scores`).

        Raises `UserError` for a damaged file, now or when the array that is damaged is asked for.
        """
        assert entry.run is not None, "a done entry has a run"
        who = f"{entry.who}: {QUICKLOOK_FILE} of run {entry.run.info.run_id}"
        remedy = f"delete the run and run the study again: mhiflab run {self.plan.command}"
        return self._once(entry, QUICKLOOK_FILE, lambda p: Pictures(p.read_bytes(), who, remedy))

    def images(self, entry: Entry) -> pd.DataFrame:
        """Return a run's metrics: one row an image, method and convention."""
        return self._once(entry, IMAGES_FILE, read_images)

    def provenance(self, entry: Entry) -> dict[str, Any]:
        """Return a run's provenance."""
        return self._once(
            entry, "provenance.json", lambda path: json.loads(path.read_text(encoding="utf-8"))
        )

    def history(self, entry: Entry, name: str) -> dict[int, float]:
        """Return the values of a run's metric by epoch."""
        assert entry.run is not None, "a done entry has a run"
        return metric_history(self.store, entry.run.info.run_id, [name])[name]

    def model(self, entry: Entry) -> FeINFN:
        """Return a run's trained network; raise `UserError` where it is no FeINFN."""
        if not isinstance(entry.trial.spec.model, ModelConfig):
            raise UserError(
                f"{self.plan.path}: case {entry.trial.case}: found "
                f"{type(entry.trial.spec.model).__name__}, expected a FeINFN, into whose parts "
                "this figure looks; choose other cases: --option cases=[...]"
            )
        model = self._once(entry, f"model/{BEST}", load_model)
        assert isinstance(model, FeINFN), "weights are of the model that the spec names"
        return model

    def scene(self, entries: Sequence[Entry], wanted: str | None) -> str:
        """Return a test image's name, by default the first; raise `UserError` for an unknown."""
        names = list(self.images(entries[0])["scene"].unique())
        if wanted is not None and wanted not in names:
            raise UserError(
                f"{self.plan.path}: option scene: found {wanted!r}, {nearest(wanted, names)}"
                "expected a test image: " + ", ".join(names)
            )
        return wanted or names[0]

    def means(self, entry: Entry, scene: str | None = None, method: str = FUSED) -> pd.Series:
        """Return the metrics of one test image, or their means over all, and the `convention`.

        The usual convention, or for real pairs without reference the one that needs none.
        """
        table = self.images(entry)
        rows = table[(table["method"] == method) & (scene is None or table["scene"] == scene)]
        usual = (rows["convention"] == CONVENTION).any()
        convention = CONVENTION if usual else WITHOUT_REFERENCE
        rows = rows[rows["convention"] == convention]
        means = rows[list(metrics_of(convention))].mean().astype(object)
        means["convention"] = convention
        return means

    def window(self, entry: Entry, scene: str | None = None) -> Window:
        """Return the part of a test image that a run kept with all bands.

        Raises `UserError` for a run that kept none, and for another image than the first.
        """
        arrays, end = self.arrays(entry), "/window/place"
        kept = [key.removesuffix(end) for key in arrays if key.endswith(end)]
        if not kept:
            raise UserError(
                f"{entry.who}: found a run without any image's bands (no <image>{end} in its "
                f"{QUICKLOOK_FILE}), which older versions made; delete the run and run the study "
                f"again: mhiflab run {self.plan.command}"
            )
        if scene not in (None, *kept):
            raise UserError(
                f"{self.plan.path}: option scene: found {scene!r}, expected {kept[0]!r}, the only "
                "test image that is kept with all its bands"
            )
        at = f"{kept[0]}/window"

        def image(what: str) -> torch.Tensor:
            return torch.from_numpy(arrays[f"{at}/{what}"].astype(np.float32) / WINDOW_STEPS)[None]

        msi, lr_hsi = (torch.from_numpy(arrays[f"{at}/{w}"])[None] for w in ("msi", "lr_hsi"))
        inputs = Inputs(msi, image(UPSAMPLED), lr_hsi)
        if f"{at}/reference" in arrays:
            inputs = Pair(*inputs.inputs(), image("reference"))
        row, col = (int(n) for n in arrays[f"{at}/place"])
        nm = arrays.get(f"{at}/wavelengths_nm")
        return Window(kept[0], (row, col), inputs, image(FUSED)[0].numpy(), nm)
