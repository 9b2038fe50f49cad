"""Robustness: evaluate a finished run off its protocol, at every PSF, SRF and noise of a grid.

Each finished cell is written beside the run's training state, so that an interrupted grid
continues. The complete table and its picture become artifacts of the run.
"""

import itertools
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from feinfn.data.pairs import ScenePairs
from feinfn.data.source import load_scene
from feinfn.errors import UserError, require
from feinfn.evaluation import by_network, evaluate_method
from feinfn.fields import Positive, Settings
from feinfn.files import BEST, write_atomic
from feinfn.methods.weights import load_model
from feinfn.metrics.label import CONVENTION, METRICS
from feinfn.protocols.protocol import Protocol
from mhiflab.paths import Lab
from mhiflab.plan.plan import Entry, Finished
from mhiflab.record.artifacts import (
    CELL_COLUMNS,
    ROBUSTNESS_FILE,
    TEXT_COLUMNS,
    add_artifact,
    read_numbers,
)
from mhiflab.record.finished import RecordedRun

KEYS = [*CELL_COLUMNS, "protocol_hash"]
"""Columns that identify a cell and the protocol that made it."""


@dataclass(frozen=True)
class Grid(Settings):
    """Variations of a run's protocol; its own values are always included."""

    sigma_factors: tuple[Positive, ...] = (0.5, 1.0, 1.5, 2.0)
    """PSF widths as multiples of the protocol's; the kernel grows with them."""
    srfs: tuple[str, ...] = ()
    """More spectral response tables."""
    snrs_db: tuple[float, ...] = (float("inf"), 40.0, 30.0, 20.0)
    """Signal-to-noise ratios of LR-HSI and MSI; inf adds no noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        valid = all(snr > float("-inf") for snr in self.snrs_db)
        require(valid, "snrs_db", self.snrs_db, "decibels, or inf")

    def protocols(self, protocol: Protocol) -> dict[tuple[float, str, float], Protocol]:
        """Return the protocol of every cell by (factor, SRF, SNR)."""
        factors = sorted({1.0, *self.sigma_factors})
        srfs = list(dict.fromkeys([protocol.srf, *self.srfs]))
        levels = sorted({float("inf"), *self.snrs_db}, reverse=True)
        return {
            (factor, srf, snr): _varied_protocol(protocol, factor, srf, snr)
            for factor, srf, snr in itertools.product(factors, srfs, levels)
        }


def _varied_protocol(protocol: Protocol, factor: float, srf: str, snr_db: float) -> Protocol:
    if protocol.noisy:
        raise UserError(
            f"protocol {protocol.name}: found noise, expected none, because the grid adds noise; "
            "evaluate a run that was trained without noise"
        )
    changed = replace(protocol, name=f"{protocol.name} off protocol", srf=srf)
    if factor != 1:
        # Keep the number of standard deviations; an even change keeps the size's parity.
        added_px = 2 * round(protocol.psf_px * (factor - 1) / 2)
        size = max(protocol.psf_px + added_px, 1)
        sigma = None if protocol.psf_sigma_px is None else protocol.psf_sigma_px * factor
        if protocol.psf == "delta" or (size == protocol.psf_px and sigma is None):
            raise UserError(
                f"found {factor:g}, expected 1 or a factor that changes the PSF of protocol "
                f"{protocol.name} ({protocol.psf}, {protocol.psf_px} px)",
                "sigma_factors",
            )
        changed = replace(changed, psf_sigma_px=sigma, psf_px=size)
    if np.isfinite(snr_db):
        changed = replace(changed, hsi_snr_db=snr_db, msi_snr_db=snr_db)
    return changed


def check_evaluable(entry: Entry) -> None:
    """Raise `UserError` if a trial has stored inputs or no trained network."""
    if entry.trial.spec.data.inputs == "stored":
        raise UserError(
            "data.inputs: found stored, expected scenes, whose inputs can be simulated anew; "
            "prepare the files' references as scenes (mhiflab data prepare files)"
        )
    if not entry.trial.spec.trained:
        raise UserError(
            f"{entry.trial.label}: found a classical method, expected a trained network; choose "
            "another case with --case"
        )


def evaluate_grid(entry: Finished, lab: Lab, grid: Grid, console: Console) -> pd.DataFrame:
    """Return the metrics of a finished trial in every cell of a grid, one row per scene.

    Only cells that are not on record are computed. A real pair without reference is evaluated as in
    training, with both images degraded by the ratio. Raises `UserError` if a PSF or SRF does not
    fit the scenes.
    """
    spec = entry.trial.spec
    path = lab.checkpoints(entry.key) / ROBUSTNESS_FILE
    table = _recorded_cells(entry.run, path)
    cells = {(*c, p.hash()[:12]): p for c, p in grid.protocols(spec.protocol).items()}
    recorded_cells = set(table[KEYS].itertuples(index=False, name=None))
    missing = {cell: p for cell, p in cells.items() if cell not in recorded_cells}
    if missing:
        load = partial(load_model, memory_mib=entry.trial.resources.memory_mib)
        model = entry.run.read(f"model/{BEST}", load)
        scenes = [load_scene(spec.data, name) for name in spec.data.test]
        for cell, protocol in track(missing.items(), "robustness", len(missing), console=console):
            images = ScenePairs(scenes, protocol, spec.model, torch.device("cpu"))
            identity = dict(zip(KEYS, cell, strict=True)) | {"convention": CONVENTION}
            rows = [
                identity | {"scene": one.image.name} | one.scores[CONVENTION]
                for one in evaluate_method(by_network(model), images)
            ]
            table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
            table = table.sort_values([*CELL_COLUMNS, "scene"], ignore_index=True)
            _write(table, path)
    # Even if nothing was missing: an earlier call may have been interrupted before this.
    if not path.is_file():
        _write(table, path)
    add_artifact(entry.run.store, entry.run.id, path)
    return table[table[KEYS].apply(tuple, axis=1).isin(list(cells))].reset_index(drop=True)


def _recorded_cells(run: RecordedRun, path: Path) -> pd.DataFrame:
    """Return the cells computed so far, from the record and from this lab."""
    name, read = ROBUSTNESS_FILE, partial(read_numbers, text=TEXT_COLUMNS)
    tables = [run.read(name, read)] if run.has(name) else []
    tables += [read(path)] if path.is_file() else []
    filled_tables = [table for table in tables if len(table)]
    if not filled_tables:
        columns = [*CELL_COLUMNS, "convention", "scene", "protocol_hash", *METRICS]
        return pd.DataFrame(columns=columns)
    cells = pd.concat(filled_tables, ignore_index=True)
    return cells.drop_duplicates([*KEYS, "scene"], ignore_index=True)


def _write(table: pd.DataFrame, path: Path) -> None:
    write_atomic(path, lambda p: table.to_csv(p, index=False, lineterminator="\n"))
