"""A study small enough to run in seconds, and a job of its."""

from typing import Any

from mhiflab.paths import Lab
from mhiflab.plan import Entry
from mhiflab.provenance import code_provenance
from mhiflab.worker import Job

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


def job_of(entry: Entry, lab: Lab, uri: str, parent: str, **changes: Any) -> Job:
    """Return the job that a driver would make of a plan's entry."""
    trial = entry.trial
    given: dict[str, Any] = {"spec": trial.spec, "resources": trial.resources}
    given |= {"survey": entry.survey, "key": entry.key, "case": "c", "label": "c"}
    given |= {"study": "tiny", "parent": parent, "lab": lab, "uri": uri}
    given |= {"scratch": lab.root.parent, "code": code_provenance()}
    return Job(**(given | changes))
