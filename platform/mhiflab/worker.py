"""What one worker of a trial does: train, and on rank 0 evaluate and record."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from feinfn.checkpoint import write_atomic
from feinfn.data.patches import Patches, load_pair
from feinfn.infer import fuse
from feinfn.metrics import CONVENTION, METRICS, evaluate
from feinfn.model import FeINFN, count_parameters
from feinfn.protocols import PROTOCOLS, Pair
from feinfn.schedule import world
from feinfn.strips import strips_within
from feinfn.train import BEST, Report, train
from mhiflab.identity import canonical
from mhiflab.paths import Lab
from mhiflab.provenance import machine_provenance
from mhiflab.spec import Resources, Spec
from mhiflab.tracking import IMAGES_FILE, QUICKLOOK_FILE, TrialRecord, open_store

RGB_NM = (640.0, 550.0, 460.0)
FUSED, UPSAMPLED = "fused", "upsampled"
"""Methods of a run's per-image table: the trained network, and the LMS it starts from."""


@dataclass(frozen=True)
class Job:
    """Everything a trial needs, on whatever machine it runs."""

    spec: Spec
    resources: Resources
    fingerprint: str
    key: str
    case: str
    label: str
    study: str
    parent: str
    lab: Lab
    uri: str
    scratch: Path
    code: dict[str, Any]

    def record(self) -> TrialRecord:
        """Return this trial's run in the store."""
        name = f"{self.case} seed {self.spec.seed}"
        tags = {
            "mhiflab.study": self.study,
            "mhiflab.case": self.case,
            "mhiflab.label": self.label,
            "mhiflab.seed": str(self.spec.seed),
        }
        return TrialRecord(open_store(self.lab, self.uri), self.key, name, self.parent, tags)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def pseudo_rgb(cube_SHW: np.ndarray, wavelengths_nm: np.ndarray | None) -> np.ndarray:
    """Return uint8 [H, W, 3] from the bands nearest to red, green and blue, gamma 1/2.2.

    Without wavelengths the bands at 3/4, 1/2 and 1/4 of the range stand for them.
    """
    if wavelengths_nm is None:
        bands = [len(cube_SHW) * part // 4 for part in (3, 2, 1)]
    else:
        bands = [int(np.abs(wavelengths_nm - nm).argmin()) for nm in RGB_NM]
    rgb = np.moveaxis(cube_SHW[bands], 0, -1).clip(0, 1) ** (1 / 2.2)
    return np.round(rgb * 255).astype(np.uint8)


def evaluate_test(
    model: FeINFN, pairs: dict[str, tuple[Pair, np.ndarray | None]], job: Job
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return per-image metrics of the fused and upsampled image, and the pictures of each scene."""
    spec = job.spec
    rows, pictures = [], {}
    for scene, (pair, wavelengths) in pairs.items():
        reference = pair.reference_BSHW[0]
        pictures[f"{scene}/reference/rgb"] = pseudo_rgb(reference.cpu().numpy(), wavelengths)
        for method, image in ((FUSED, fuse(model, pair)[0]), (UPSAMPLED, pair.lms_BSHW[0])):
            values = evaluate(image, reference, PROTOCOLS[spec.protocol].ratio)
            about = {"scene": scene, "method": method, "protocol": spec.protocol}
            rows.append({**about, "convention": CONVENTION, **values})
            pictures[f"{scene}/{method}/rgb"] = pseudo_rgb(image.cpu().numpy(), wavelengths)
            error = (image - reference).abs().mean(dim=0).cpu().numpy()
            pictures[f"{scene}/{method}/error"] = error.astype(np.float16)
    return pd.DataFrame(rows), pictures


def _record_start(record: TrialRecord, job: Job) -> None:
    spec, code = job.spec, job.code
    record.settings(
        flatten(asdict(spec)),
        {
            "mhiflab.protocol": spec.protocol,
            "mhiflab.convention": CONVENTION,
            "mhiflab.data_fingerprint": job.fingerprint,
            "mhiflab.git_commit": str(code["git_commit"]),
            "mhiflab.git_dirty": str(code["git_dirty"]),
        },
    )
    record.json(asdict(spec), "spec.json")
    record.json(canonical(spec, job.fingerprint), "identity.json")


def _record_end(
    record: TrialRecord, job: Job, folder: Path, table: pd.DataFrame, pictures: dict[str, Any]
) -> None:
    fused = table[table["method"] == FUSED]
    steps = job.spec.train.epochs
    finite = {f"test_{m}": float(fused[m].mean()) for m in METRICS}
    record.metrics(steps, finite)
    write_atomic(folder / IMAGES_FILE, lambda path: table.to_csv(path, index=False))

    def write_pictures(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **pictures)

    write_atomic(folder / QUICKLOOK_FILE, write_pictures)
    for name in (IMAGES_FILE, QUICKLOOK_FILE):
        record.artifact(folder / name)
    record.artifact(folder / BEST, "model")
    record.json(asdict(job.spec.model), "model/config.json")


def run_worker(job: Job, device: torch.device, report: Callable[[dict[str, float]], None]) -> None:
    """Train one trial's share; on rank 0 also evaluate the test scenes once, and record all.

    `report` is called on every rank after every epoch. Test scenes are first opened when training
    has ended.
    """
    started = time.perf_counter()
    spec, folder = job.spec, job.lab.checkpoints(job.key)
    torch.set_num_threads(max(1, int(job.resources.cpus_per_worker)))
    protocol = PROTOCOLS[spec.protocol]
    torch.manual_seed(spec.seed)
    model = FeINFN(spec.model).to(device)
    model.memory_mib = job.resources.memory_mib
    model.recompute = job.resources.recompute

    def load(names: tuple[str, ...]) -> list[tuple[Pair, np.ndarray | None]]:
        return [load_pair(spec.data, name, protocol, spec.model, device) for name in names]

    patches = Patches(
        [pair for pair, _ in load(spec.data.train)],
        protocol.ratio,
        spec.train.patch_px,
        spec.train.stride_px,
    )
    validation = [pair for pair, _ in load(spec.data.validation)]
    if model.memory_mib is not None:
        for pair in validation:
            # Now, and not after the first epoch.
            (h, w), (height, width) = pair.lr_hsi_BShw.shape[-2:], pair.lms_BSHW.shape[-2:]
            strips_within(model.memory_mib, spec.model, (h, w), (height, width), 1)
    record = job.record() if world()[0] == 0 else None
    if record:
        _record_start(record, job)

    def on_epoch(epoch: Report) -> None:
        if record:
            record.metrics(epoch.epoch, epoch.metrics)
        report({"epoch": epoch.epoch, **epoch.metrics})

    best = train(model, patches, validation, spec.train, spec.seed, folder, on_epoch)
    if record:
        test = dict(zip(spec.data.test, load(spec.data.test), strict=True))
        table, pictures = evaluate_test(model, test, job)
        _record_end(record, job, folder, table, pictures)
        code = {k: v for k, v in job.code.items() if k != "git_diff"}
        record.json(
            {
                **code,
                **machine_provenance(device),
                "data_fingerprint": job.fingerprint,
                "protocol": asdict(protocol),
                "resources": asdict(job.resources),
                "workers": world()[1],
                "parameters": count_parameters(model),
                "best_epoch": best["epoch"] + 1,
                "wall_seconds": round(time.perf_counter() - started, 3),
            },
            "provenance.json",
        )
        if job.code["git_diff"]:
            record.text(job.code["git_diff"], "uncommitted.diff")
        record.finish()
