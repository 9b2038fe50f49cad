"""A study of scenes with gaps: trained, validated, tested, recorded, and evaluated off protocol."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
import yaml
from tiny import TINY, job_of

from feinfn.config import DataConfig
from feinfn.data.prepare import prepare
from feinfn.data.source import load_scene, resolve_data
from feinfn.protocols.simulate import lr_pixels_with_data
from feinfn.region import fused_valid
from mhiflab.console import out
from mhiflab.execute.robustness import Grid, evaluate_grid
from mhiflab.execute.worker import run_worker
from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan, reconcile
from mhiflab.record.store import open_store, tracking_uri
from mhiflab.record.studies import study_run


def test_a_study_of_scenes_with_gaps_is_recorded(tmp_path, capsys):
    sample = resolve_data(DataConfig())
    names = dict(zip(("train", "validation", "test"), "abc", strict=True))
    scenes, valid = {}, np.ones((128, 128), bool)
    valid[50:54, 90:97] = valid[:, :10] = False
    for name, original in zip("abc", sample.train, strict=False):
        scene = load_scene(sample, original)
        raw = np.where(valid, scene.raw_SHW, 0)
        scenes[name] = replace(scene, name=name, raw_SHW=raw, valid_HW=valid)
        (tmp_path / f"{name}.bin").touch()
    files = {name: tmp_path / f"{name}.bin" for name in "abc"}
    prepare(files, tmp_path / "gaps.h5", read=lambda name, path: scenes[name])
    study = deepcopy(TINY)
    lists = {part: [name] for part, name in names.items()}
    study["base"]["data"] = {"source": str(tmp_path / "gaps.h5"), **lists}
    network = study["base"].pop("model")
    study["cases"] = {
        "network": {"label": "network", "set": {f"model.{k}": v for k, v in network.items()}},
        "gsa": {"label": "GSA", "set": {"model.name": "gsa"}},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    lab, uri = Lab(tmp_path / "lab"), tracking_uri(Lab(tmp_path / "lab"))
    store = open_store(lab, uri)
    parent = study_run(store, "tiny", "")
    for entry in read_plan(file).entries:
        job = job_of(entry, lab, uri, parent, case=entry.trial.case, label=entry.trial.label)
        run_worker(job, torch.device("cpu"), lambda metrics: None)
    entries = reconcile(read_plan(file), store, lab).entries
    assert [entry.state for entry in entries] == ["done", "done"]
    for entry in entries:
        metrics = entry.run.metrics
        assert all(np.isfinite(metrics[f"test_{m}"]) for m in ("psnr", "sam", "ergas", "ssim"))
    assert entries[0].run.metrics["val_psnr"] > 10
    # Gaps are 0 in the reference: a method that was scored on them could not be this good.
    assert entries[1].run.metrics["test_psnr"] > 25
    lr_valid = lr_pixels_with_data(entries[0].trial.spec.protocol, valid)
    missing = (~fused_valid(valid, lr_valid, valid.shape)).sum()
    assert missing > (~valid).sum()
    assert f"c: {missing} of 16384 pixels have no data" in capsys.readouterr().out
    grid = Grid(sigma_factors=(1.0,), snrs_db=(float("inf"), 30.0))
    cells = evaluate_grid(entries[0], lab, grid, out)
    assert len(cells) == 2
    assert np.isfinite(cells.psnr.astype(float)).all()
