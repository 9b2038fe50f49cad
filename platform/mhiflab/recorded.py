"""A study's recorded runs as figures read them: artifacts and histories, never scenes."""

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
from feinfn.protocols.simulate import Inputs, Pair
from mhiflab.plan.plan import Entry, Plan, labels_of
from mhiflab.record.artifacts import (
    FUSED,
    UPSAMPLED,
    WINDOW_STEPS,
    WITHOUT_REFERENCE,
    Pictures,
    metrics_of,
    read_images,
)
from mhiflab.record.store import IMAGES_FILE, QUICKLOOK_FILE, Store, artifact_file, metric_history

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
