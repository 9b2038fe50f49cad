"""What one worker of a trial does: train, and on rank 0 evaluate and record."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feinfn.checkpoint import write_atomic
from feinfn.data.pairs import ScenePairs, with_reference
from feinfn.data.patches import Patches
from feinfn.data.scene import Scene
from feinfn.data.source import Survey, load_scene
from feinfn.data.stored import StoredPairs, prepared_file
from feinfn.errors import UserError
from feinfn.metrics import CONVENTION
from feinfn.model import FeINFN, count_parameters
from feinfn.schedule import world
from feinfn.train import BEST, Report, train
from mhiflab.identity import canonical
from mhiflab.paths import Lab
from mhiflab.provenance import machine_provenance
from mhiflab.scores import (
    FUSED,
    WITHOUT_REFERENCE,
    Scores,
    TestImage,
    metrics_of,
    scene_images,
    score,
    stored_images,
)
from mhiflab.spec import Resources, Spec
from mhiflab.tracking import (
    BANDS_FILE,
    IMAGES_FILE,
    QUICKLOOK_FILE,
    TESTED_TAG,
    TrialRecord,
    open_store,
)


@dataclass(frozen=True)
class Job:
    """Everything a trial needs, on whatever machine it runs."""

    spec: Spec
    resources: Resources
    survey: Survey
    key: str
    case: str
    label: str
    study: str
    parent: str
    lab: Lab
    uri: str
    scratch: Path
    code: dict[str, Any]
    test: bool = True
    """Open the test scenes once training has ended; a search leaves them closed."""
    shared: dict[str, Any] = field(default_factory=dict)
    """Scenes for training and choosing by name, as references to Ray's object store."""

    def scenes(self, names: tuple[str, ...]) -> list[Scene]:
        """Return scenes without a copy where the driver shared them, else from their source."""
        found = []
        for name in names:
            if name in self.shared:
                import ray

                found.append(ray.get(self.shared[name]))
            else:
                found.append(self._unchanged(load_scene(self.spec.data, name)))
        return found

    def _unchanged(self, scene: Scene) -> Scene:
        """Return the scene; raise `UserError` if its pixels are not those of the run's identity."""
        known = {one.name: one.content for one in self.survey.scenes}
        if scene.pixel_hash() != known[scene.name]:
            raise UserError(
                f"{scene.source}: the pixels of {scene.name} changed since the run was planned; "
                "bring the file back, or plan and run again with the new one"
            )
        return scene

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


def _record_start(record: TrialRecord, job: Job) -> None:
    spec, code = job.spec, job.code
    record.settings(
        flatten(asdict(spec)),
        {
            "mhiflab.protocol": spec.protocol.name,
            "mhiflab.convention": CONVENTION,
            "mhiflab.data_fingerprint": job.survey.fingerprint,
            "mhiflab.git_commit": str(code["git_commit"]),
            "mhiflab.git_dirty": str(code["git_dirty"]),
        },
    )
    record.json(asdict(spec), "spec.json")
    record.json(canonical(spec, job.survey.fingerprint), "identity.json")


def _record_end(record: TrialRecord, job: Job, folder: Path, scores: Scores) -> None:
    images = scores.images
    fused = images[images["method"] == FUSED]
    for convention in (CONVENTION, WITHOUT_REFERENCE):
        rows = fused[fused["convention"] == convention]
        means = {f"test_{m}": float(rows[m].mean()) for m in metrics_of(convention) if len(rows)}
        record.metrics(job.spec.train.epochs, means)

    def write_pictures(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **scores.pictures)  # type: ignore[arg-type]

    write_atomic(folder / QUICKLOOK_FILE, write_pictures)
    for name, table in ((IMAGES_FILE, images), (BANDS_FILE, scores.bands)):
        write_atomic(folder / name, partial(table.to_csv, index=False))
    for name in (IMAGES_FILE, BANDS_FILE, QUICKLOOK_FILE):
        record.artifact(folder / name)
    record.artifact(folder / BEST, "model")
    record.json(asdict(job.spec.model), "model/config.json")


def _stored(job: Job, names: tuple[str, ...], device: torch.device) -> StoredPairs:
    spec = job.spec
    files = [prepared_file(spec.data, name) for name in names]
    return StoredPairs(files, spec.protocol, spec.model, device)


def _training_data(
    job: Job, device: torch.device
) -> tuple[Patches | StoredPairs, ScenePairs | StoredPairs]:
    """Return what to train on, and what the best epoch is chosen on."""
    spec, data = job.spec, job.spec.data
    if data.inputs == "stored":
        return _stored(job, data.train, device), _stored(job, data.validation, device)
    train = [with_reference(scene, spec.protocol) for scene in job.scenes(data.train)]
    patches = Patches(train, spec.protocol, spec.train, device, data.inputs == "patch")
    return patches, ScenePairs(job.scenes(data.validation), spec.protocol, spec.model, device)


def _test_images(job: Job, device: torch.device) -> Iterator[TestImage]:
    if job.spec.data.inputs == "stored":
        return stored_images(_stored(job, job.spec.data.test, device))
    return scene_images(job.scenes(job.spec.data.test), job.spec, device)


def run_worker(job: Job, device: torch.device, report: Callable[[dict[str, float]], None]) -> None:
    """Train one trial's share; on rank 0 also evaluate the job's test scenes once, and record all.

    `report` is called on every rank after every epoch. Test scenes are first opened when training
    has ended.
    """
    started = time.perf_counter()
    spec, folder = job.spec, job.lab.checkpoints(job.key)
    torch.set_num_threads(max(1, int(job.resources.cpus_per_worker)))
    protocol = spec.protocol
    torch.manual_seed(spec.seed)
    model = FeINFN(spec.model).to(device)
    model.memory_mib = job.resources.memory_mib
    model.recompute = job.resources.recompute
    patches, validation = _training_data(job, device)
    record = job.record() if world()[0] == 0 else None
    if record:
        _record_start(record, job)

    def on_epoch(epoch: Report) -> None:
        if record:
            record.metrics(epoch.epoch, epoch.metrics)
        report({"epoch": epoch.epoch, **epoch.metrics})

    best = train(model, patches, validation, spec.train, spec.seed, folder, on_epoch)
    if record:
        if job.test:
            _record_end(record, job, folder, score(model, _test_images(job, device), spec))
        record.settings({}, {TESTED_TAG: str(job.test).lower()})
        code = {k: v for k, v in job.code.items() if k != "git_diff"}
        record.json(
            {
                **code,
                **machine_provenance(device),
                "data_fingerprint": job.survey.fingerprint,
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
