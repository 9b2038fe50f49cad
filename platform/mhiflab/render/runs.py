"""Finished runs of a study, as tables and figures read them.

All numbers, artifacts and histories come from the record.
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
        """The finished trials, whose numbers these are."""
        return [entry for entry in self.entries if entry.state == "done"]

    @property
    def labels(self) -> dict[str, str]:
        """Distinct name of every case in tables, in the order of the file."""
        return labels_of(self.entries)

    @property
    def suffix(self) -> str:
        """Suffix of file names; empty in the usual convention."""
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

        Trials without training have no seed (NaN).
        """
        rows = self.images[self.images["method"] == FUSED]
        trained = {e.trial.case: e.trial.spec.trained for e in self.entries}
        seeds = rows["seed"].where(rows["case"].map(trained).astype(bool))
        return rows.assign(method=rows["case"].map(self.labels), seed=seeds)

    def upsampled(self) -> pd.DataFrame:
        """Return the metrics of the upsampled LR-HSI, one row per scene, without seeds.

        The numbers are those of the run whose key comes first. Raises `UserError` if two runs
        disagree by more than the rounding of devices.
        """
        rows = self.images[self.images["method"] == UPSAMPLED]
        of_run = {(e.trial.case, e.trial.spec.seed): e for e in self.done}
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
                    "pixels and run the study again"
                )
        return by_scene.head(1)[["scene", *self.metrics]].reset_index(drop=True)


def collect(
    plan: Plan, store: Store, convention: str | None = None, partial: bool = False
) -> Results:
    """Read the per-image metrics of all trials from the record, in one convention.

    The default is the usual convention, or for real pairs without reference the one that needs
    none. Raises `UserError` if a run is missing and `partial` is false, if no run is finished, if
    trials differ in protocol or test scenes, or if a run has no numbers in the convention.
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
    conventions = list(images["convention"].unique())
    if convention is None:
        convention = CONVENTION if CONVENTION in conventions else WITHOUT_REFERENCE
    if convention not in conventions:
        raise UserError(
            f"--convention: found {convention!r}, {nearest(convention, conventions)}expected one "
            f"that the runs of {plan.path} were evaluated in: " + ", ".join(conventions)
        )
    selected = images[images["convention"] == convention].reset_index(drop=True)
    counts = selected.groupby(["case", "seed"]).size()
    if counts.nunique() != 1 or len(counts) != len(images.groupby(["case", "seed"])):
        raise UserError(
            f"{plan.path}: not every run has all its images in convention {convention}; run the "
            "study again, or use another convention"
        )
    return selected, convention


T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """The middle of a run's first test image with all bands, in [0, 1]."""

    scene: str
    place: tuple[int, int]
    """Its first row and column in the image."""
    inputs: Inputs
    """A `Pair` if the image has a reference; batch of one."""
    fused_SHW: np.ndarray
    wavelengths_nm: np.ndarray | None

    def pair(self, who: str) -> Pair:
        """Return the inputs with their reference; raise `UserError` if there is none."""
        if isinstance(self.inputs, Pair):
            return self.inputs
        raise UserError(
            f"{who}: found no reference of test image {self.scene}, expected one, which this "
            "figure compares with; choose a study of simulated pairs"
        )


@dataclass(frozen=True)
class RecordedStudy:
    """A study's plan with the store of its runs; keeps what it has read from them."""

    plan: Plan
    store: Store
    _read: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def labels(self) -> dict[str, str]:
        """Distinct label of every case; equal labels get the case's name."""
        return labels_of(self.plan.entries)

    def entries(self, cases: Sequence[str] = (), seed: int | None = None) -> list[Entry]:
        """Return the finished runs of cases in their order, by default of all cases and seeds.

        Raises `UserError` if a case or seed is unknown or a run is missing.
        """
        known_cases = self.labels
        for case in cases:
            if case not in known_cases:
                raise UserError(
                    f"{self.plan.path}: option cases: found {case!r}, {nearest(case, known_cases)}"
                    "expected cases of this study: " + ", ".join(known_cases)
                )
        seeds = list(dict.fromkeys(entry.trial.spec.seed for entry in self.plan.entries))
        if seed is not None and seed not in seeds:
            raise UserError(
                f"{self.plan.path}: option seed: found {seed}, expected one of "
                + ", ".join(map(str, seeds))
            )
        selected = [
            entry
            for case in dict.fromkeys(cases or known_cases)
            for entry in self.plan.entries
            if entry.trial.case == case
            # A method without training has one run for all seeds.
            and (seed in (None, entry.trial.spec.seed) or not entry.trial.spec.trained)
        ]
        missing = [entry.who for entry in selected if entry.state != "done"]
        if missing:
            raise UserError(
                f"{self.plan.path}: {len(missing)} of the figure's {len(selected)} runs are "
                f"missing ({'; '.join(missing[:4])}); execute them first: mhiflab run "
                f"{self.plan.command}"
            )
        return selected

    def of_one_seed(self, cases: Sequence[str] = (), seed: int | None = None) -> list[Entry]:
        """Return one finished run per case, of a seed that is by default the study's first.

        Raises `UserError` as `entries` does, and if cases differ in protocol or test scenes.
        """
        seed = self.plan.entries[0].trial.spec.seed if seed is None else seed
        return self.comparable(self.entries(cases, seed))

    def comparable(self, entries: list[Entry]) -> list[Entry]:
        """Return runs for one figure; raise `UserError` if protocols or test scenes differ."""
        specs = [entry.trial.spec for entry in entries]
        differing = {
            "protocols": {s.protocol.hash(): s.protocol.name for s in specs}.values(),
            "test scenes": {s.data.test: ", ".join(s.data.test) for s in specs}.values(),
        }
        for quantity, values in differing.items():
            if len(values) > 1:
                raise UserError(
                    f"{self.plan.path}: one figure cannot mix {quantity}, found "
                    f"{' and '.join(values)}; choose cases that share them: --option cases=[...]"
                )
        return entries

    def networks(
        self, part: str = "a decoder", has: Callable[[ModelConfig], bool] = lambda _: True
    ) -> list[str]:
        """Return the cases that are a FeINFN with some part; raise `UserError` if there is none."""
        specs = {entry.trial.case: entry.trial.spec for entry in self.plan.entries}
        fitting = [c for c, s in specs.items() if isinstance(s.model, ModelConfig) and has(s.model)]
        if not fitting:
            raise UserError(
                f"{self.plan.path}: found no case that is a FeINFN with {part}, expected one, into "
                "which this figure looks; choose another study"
            )
        return fitting

    def network_entry(
        self,
        case: str | None,
        seed: int | None,
        part: str = "a decoder",
        has: Callable[[ModelConfig], bool] = lambda _: True,
    ) -> Entry:
        """Return the finished run of a case, by default the first FeINFN with some part.

        Raises `UserError` if the case, or every case, lacks the part.
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
        """Return the result of `read` for an artifact; read it only once."""
        assert entry.run is not None, "a done entry has a run"
        key = (entry.run.info.run_id, name)
        if key not in self._read:
            with artifact_file(self.store, key[0], name) as path:
                self._read[key] = read(path)
        return self._read[key]

    def arrays(self, entry: Entry) -> Mapping[str, np.ndarray]:
        """Return the arrays of a run's pictures (see `evaluate.Scores`), each unpacked on access.

        Raises `UserError` if the file is damaged, now or on access to a damaged array.
        """
        assert entry.run is not None, "a done entry has a run"
        who = f"{entry.who}: {QUICKLOOK_FILE} of run {entry.run.info.run_id}"
        remedy = f"delete the run and run the study again: mhiflab run {self.plan.command}"
        return self._once(entry, QUICKLOOK_FILE, lambda p: Pictures(p.read_bytes(), who, remedy))

    def images(self, entry: Entry) -> pd.DataFrame:
        """Return a run's metrics, one row per image, method and convention."""
        return self._once(entry, IMAGES_FILE, read_images)

    def provenance(self, entry: Entry) -> dict[str, Any]:
        """Return a run's provenance: code, machine and facts about its training."""
        return self._once(
            entry, "provenance.json", lambda path: json.loads(path.read_text(encoding="utf-8"))
        )

    def history(self, entry: Entry, name: str) -> dict[int, float]:
        """Return the values of a run's metric by epoch."""
        assert entry.run is not None, "a done entry has a run"
        return metric_history(self.store, entry.run.info.run_id, [name])[name]

    def model(self, entry: Entry) -> FeINFN:
        """Return a run's trained network; raise `UserError` if it is not a FeINFN."""
        if not isinstance(entry.trial.spec.model, ModelConfig):
            raise UserError(
                f"{self.plan.path}: case {entry.trial.case}: found "
                f"{type(entry.trial.spec.model).__name__}, expected a FeINFN, into whose parts "
                "this figure looks; choose other cases: --option cases=[...]"
            )
        model = self._once(entry, f"model/{BEST}", load_model)
        assert isinstance(model, FeINFN), "weights are of the model that the spec names"
        return model

    def scene(self, entries: Sequence[Entry], requested: str | None) -> str:
        """Return a test image's name, by default the first; raise `UserError` if it is unknown."""
        names = list(self.images(entries[0])["scene"].unique())
        if requested is not None and requested not in names:
            raise UserError(
                f"{self.plan.path}: option scene: found {requested!r}, {nearest(requested, names)}"
                "expected a test image: " + ", ".join(names)
            )
        return requested or names[0]

    def means(self, entry: Entry, scene: str | None = None, method: str = FUSED) -> pd.Series:
        """Return the metrics of one test image, or their means over all, and their `convention`.

        It is the usual convention, or for real pairs without reference the one that needs none.
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
        """Return the part of the first test image that a run kept with all bands.

        Raises `UserError` if the run kept none or `scene` is another image.
        """
        arrays, end = self.arrays(entry), "/window/place"
        scenes = [key.removesuffix(end) for key in arrays if key.endswith(end)]
        if not scenes:
            raise UserError(
                f"{entry.who}: found a run without any image's bands (no <image>{end} in its "
                f"{QUICKLOOK_FILE}), which older versions made; delete the run and run the study "
                f"again: mhiflab run {self.plan.command}"
            )
        if scene not in (None, *scenes):
            raise UserError(
                f"{self.plan.path}: option scene: found {scene!r}, expected {scenes[0]!r}, the "
                "only test image that is kept with all its bands"
            )
        key = f"{scenes[0]}/window"

        def image(name: str) -> torch.Tensor:
            return torch.from_numpy(arrays[f"{key}/{name}"].astype(np.float32) / WINDOW_STEPS)[None]

        msi, lr_hsi = (torch.from_numpy(arrays[f"{key}/{w}"])[None] for w in ("msi", "lr_hsi"))
        inputs = Inputs(msi, image(UPSAMPLED), lr_hsi)
        if f"{key}/reference" in arrays:
            inputs = Pair(*inputs.inputs(), image("reference"))
        row, col = (int(n) for n in arrays[f"{key}/place"])
        wavelengths_nm = arrays.get(f"{key}/wavelengths_nm")
        return Window(scenes[0], (row, col), inputs, image(FUSED)[0].numpy(), wavelengths_nm)
