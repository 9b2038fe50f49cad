"""A study small enough to run in seconds, a job of its, and a record of all of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from mlflow.entities import Run, RunData, RunInfo

from mhiflab.cluster.code import code_provenance
from mhiflab.execute.job import Job
from mhiflab.execute.worker import run_worker
from mhiflab.paths import Lab
from mhiflab.plan.plan import Entry, Finished, read_plan
from mhiflab.record.finished import RecordedRun
from mhiflab.record.store import open_store, tracking_uri
from mhiflab.record.studies import study_run

TINY: dict = {
    "title": "tiny",
    "base": {
        "model": {
            "feat_dim": 4,
            "guide_dim": 4,
            "spatial_blocks": 1,
            "spectral_blocks": 1,
            "mlp_widths": [8],
            "decoder_width": 8,
            "decoder_layers": 1,
        },
        "train": {"epochs": 2, "batch_size": 2, "patch_px": 32, "stride_px": 64, "lr": 1e-3},
        "resources": {"workers": 0, "memory_mib": 256, "recompute": True},
    },
    "cases": {
        "without": {"label": "without", "set": {"model.fourier_branch": False}},
        "full": {"label": "full", "set": {}},
    },
    "seeds": [1],
}
ONE_OF_EACH = {
    "source": "sample",
    "train": ["cloth_ms"],
    "validation": ["fake_and_real_food_ms"],
    "test": ["pompoms_ms"],
}
"""Data of a study whose numbers no test looks at: a quarter of the steps, half of the images."""
PUBLISHED = {
    "method": "Old | one",
    "data": "cave",
    "ratio": "4",
    "psnr": "50.10",
    "psnr_std": "3.5",
    "sam": "2.00",
    "parameters_counted": "1.234",
    "source": "Somebody",
    "protocol": "another PSF",
}
"""A row of a file of published numbers."""


def job_of(entry: Entry, lab: Lab, uri: str, parent: str, **changes: Any) -> Job:
    """Return the job that a driver would make of a plan's entry."""
    trial = entry.trial
    given: dict[str, Any] = {"spec": trial.spec, "resources": trial.resources}
    given |= {"survey": entry.survey, "key": entry.key, "case": "c", "label": "c"}
    given |= {"study": "tiny", "parent": parent, "lab": lab, "uri": uri}
    given |= {"scratch": lab.root.parent, "code": code_provenance()}
    return Job(**(given | changes))


def finished(entry: Entry, run: RecordedRun | None = None) -> Finished:
    """Return a plan's entry with a finished run, by default one that recorded nothing."""
    info = RunInfo(entry.key, "0", "user", "FINISHED", 0, 0, "active")
    run = run or RecordedRun(None, Run(info, RunData()))
    return Finished(entry.trial, entry.key, "done", survey=entry.survey, run=run)


def changed(run: RecordedRun, **parts: Any) -> RecordedRun:
    """Return a run some parts of whose record are others."""
    other = replace(run)
    vars(other).update({**vars(run), **parts})
    return other


def record_study(folder: Path) -> tuple[Path, tuple[Entry, ...]]:
    """Record TINY with two seeds below `folder`/lab, without Ray; return its file and entries."""
    study = folder / "tiny.yaml"
    study.write_text(yaml.safe_dump({**TINY, "seeds": [1, 2]}, sort_keys=False))
    lab = Lab(folder / "lab")
    uri = tracking_uri(lab)
    parent = study_run(open_store(lab, uri), "tiny", "")
    entries = read_plan(study).entries
    for entry in entries:
        trial = entry.trial
        job = job_of(entry, lab, uri, parent, case=trial.case, label=trial.label)
        run_worker(job, torch.device("cpu"), lambda metrics: None)
    return study, entries
