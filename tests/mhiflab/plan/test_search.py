"""Searches: what is refused, and what the record says of them."""

import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from places import SAMPLE
from tiny import TINY, job_of

from feinfn.data.source import EMBEDDED, embedded_scenes
from feinfn.errors import UserError
from feinfn.files import STATE
from mhiflab.execute.worker import run_worker
from mhiflab.paths import Lab, experiments_dir, shipped_studies
from mhiflab.plan.plan import read_plan, reconcile
from mhiflab.plan.search import with_values
from mhiflab.record import tag
from mhiflab.record.archive import archived_data
from mhiflab.record.store import open_store, stop_run, tracking_uri, trial_runs
from mhiflab.record.studies import study_run
from mhiflab.record.writer import Record, trial_record
from mhiflab.study.read import read_study
from mhiflab.study.search import Range, Scheduler, Search
from mhiflab.study.spec import ON_DISK

PSNR = {"val_psnr": "max"}


def described(**changes) -> dict:
    space = {"train.lr": {"log_uniform": [1e-4, 1e-1]}}
    return {"space": space, "objectives": PSNR, "trials": 3, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"train.rl": {"uniform": [0, 1]}}}, r"'train.rl', did you mean 'train.lr'\?"),
        ({"space": {"data.source": {"choice": ["a", "b"]}}}, "expected .*a key of model or train"),
        ({"space": {"train.lr": {"uniform": [1, 1]}}}, r"lr.uniform: found \[1.0, 1.0\], expected"),
        (
            {"space": {"train.lr": {"log_uniform": [0, 1]}}},
            r"lr.log_uniform: found \(0.0, 1.0\), expected a list of 2 numbers > 0",
        ),
        ({"space": {"train.lr": {"log_unifrm": [1, 2]}}}, "did you mean 'log_uniform'"),
        ({"space": {"train.lr": {}}}, "train.lr: found 'nothing', expected one of uniform"),
        ({"space": {"model.feat_dim": {"integer": [1.5, 2]}}}, "integer.0: found 1.5"),
        (
            {"space": {"train.loss": {"choice": ["l1"]}}},
            "expected a list of any values, at least 2, all different",
        ),
        ({"space": {"train.loss": {"choice": ["l1", "l3"]}}}, "at loss l3: train.loss: found 'l3'"),
        ({"space": {"model.feat_dim": {"integer": [0, 4]}}}, "at feat_dim 0: model.feat_dim: foun"),
        (
            {"space": {"model.hsi_bands": {"integer": [31, 33]}}},
            "at hsi_bands 33: .*found 31 bands",
        ),
        ({"space": {}}, "search.space: found {}, expected at least one key"),
        (
            {"objectives": {"test_psnr": "max"}},
            "found 'test_psnr', expected val_psnr, because test scenes choose nothing",
        ),
        ({"objectives": {"val_psnr": "best"}}, "objectives.val_psnr: found 'best'"),
        ({"objectives": {"parameters": "min"}}, "at least one of them a validation metric"),
        ({"algorithm": "tree"}, "search.algorithm: found 'tree', expected.*'tpe'"),
        ({"trials": 1}, "search.trials: found 1, expected an integer >= 2"),
        ({"scheduler": {"name": "hyperband"}}, "scheduler.name: found 'hyperband', .*'asha'"),
        ({"scheduler": {"name": "pbt"}}, "expected random with pbt"),
        ({"scheduler": {"name": "asha", "grace_epochs": 2}}, "less than train.epochs = 2"),
        (
            {"scheduler": {"name": "asha"}, "objectives": {"val_psnr": "max", "flops": "min"}},
            "none with two objectives",
        ),
        ({"space": {"model.width": {"choice": [4, 8]}}}, "unknown key 'model.width'"),
        ({"schedular": {}}, "unknown key 'search.schedular'; did you mean 'scheduler'"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_the_plan(changes, message, write_study):
    path = write_study(search=described(**changes), cases={})
    with pytest.raises(UserError, match=message) as caught:
        read_plan(path)
    assert "tiny.yaml" in str(caught.value)


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_searches_can_be_planned(name):
    path = experiments_dir() / f"{name}.yaml"
    study = read_study(path)
    if study.search is not None:
        # Of the others' scenes the repository holds names and fingerprints alone.
        embedded = study.base["data"]["source"] in EMBEDDED
        access = ON_DISK if embedded else archived_data(experiments_dir() / "paper/record/physics")
        (one,) = read_plan(path, data_access=access).searches
        assert study.search.space.keys() == one.values_of_base().keys()


def test_search_is_known_by_all_but_its_length(write_study):
    def identity(seeds=(1,), **changes) -> str:
        study = write_study(search=described(**changes), cases={}, seeds=list(seeds))
        return read_plan(study).searches[0].id

    same = identity()
    assert identity(trials=30) == same == identity(seeds=[1, 2])
    others = {identity(seed=2), identity(algorithm="random"), identity(seeds=[2])}
    assert len({same, *others, identity(scheduler={"name": "asha", "grace_epochs": 1})}) == 5


def test_state_of_a_search_is_read_from_the_record(write_study, tmp_path):
    lab = Lab(tmp_path / "lab")
    plan = read_plan(write_study(search=described(trials=6), cases={}, seeds=[1, 2]))
    (one,) = plan.searches
    assert [e.trial.label for e in plan.entries] == ["Default (lr 0.001)"] * 2
    assert one.suggestion(0, (0, one.values_of_base())).key == plan.entries[0].key
    store = open_store(lab, tracking_uri(lab))
    parent = study_run(store, "tiny", "")

    def record(index: int, lr: float, psnr: list[float]) -> Record:
        key = one.suggestion(index, (0, {"train.lr": lr})).key
        run = trial_record(lab, store.uri, key, "trial", parent, {})
        run.settings({}, {f"{tag.SEARCH}.{one.id}.{index}": f'{{"train.lr": {lr}}}'})
        for step, value in enumerate(psnr, 1):
            run.metrics(step, {"val_psnr": value, "loss": 1.0})
        return run

    record(0, 1e-3, [20, 21]).finish()
    best = record(1, 2e-3, [30, 25])
    best.settings({}, {tag.TESTED: "false"})
    best.finish()
    record(2, 3e-3, [40]).close()
    stopped = one.suggestion(2, (0, {"train.lr": 3e-3})).key
    stop_run(store, trial_runs(store)[stopped].info.run_id, 1)
    record(3, 4e-3, []).fail("training diverged: the loss was nan", "")
    record(4, 5e-3, []).fail("MemoryError: ", "")
    seen = reconcile(plan, store, lab)
    found = seen.searches[0]
    assert [s.state for s in found.suggestions] == ["done", "done", "stopped", "failed", "new"]
    # The weights of the best epoch are kept, so theirs is the result.
    assert [s.objectives for s in found.suggestions[:3]] == [(21.0,), (30.0,), (40.0,)]
    # What was stopped is not trained to its end, so it is not the best.
    assert [s.index for s in found.best] == [1]
    assert "4 of 6 suggestions recorded; best so far #1 (lr 0.002): 30; default: 21" in found.line()
    assert [entry.state for entry in seen.entries] == ["done", "new"]

    record(4, 5e-3, [10]).finish()
    record(5, 6e-3, [10]).finish()
    done = reconcile(plan, store, lab)
    assert [(e.trial.label, e.trial.spec.seed, e.state) for e in done.entries[2:]] == [
        ("Best of 6 (lr 0.002)", 1, "new"),
        ("Best of 6 (lr 0.002)", 2, "new"),
    ]
    # Another search does not count these.
    other = read_plan(write_study(search=described(trials=6, seed=2), cases={}))
    assert reconcile(other, store, lab).searches[0].suggestions == ()


def test_every_case_is_searched_around_its_own_settings(write_study):
    plan = read_plan(write_study(search=described()))
    assert [s.base.case for s in plan.searches] == ["without", "full"]
    without, full = (with_values(s.base, {"train.lr": 0.5}, "here").spec for s in plan.searches)
    assert (without.model.fourier_branch, full.model.fourier_branch) == (False, True)
    assert without.train.lr == 0.5
    assert [e.trial.label for e in plan.entries] == [
        "without: Default (lr 0.001)",
        "full: Default (lr 0.001)",
    ]


@pytest.mark.parametrize(
    ("base", "stated", "tried", "shown"),
    [
        ("gsa", None, "lms", "image"),
        ("lms", None, "gsa", "difference"),
        ("lms", "image", "gsa", "image"),
        ("gsa", "image", "local", "image"),
    ],
)
def test_what_a_suggested_base_shows_is_what_the_case_states(
    base, stated, tried, shown, write_study
):
    model = {**TINY["base"]["model"], "base": base, "shown": stated}
    plan = read_plan(write_study(cases={}, base={**TINY["base"], "model": model, "resources": {}}))
    (trial,) = (entry.trial for entry in plan.entries)
    assert with_values(trial, {"model.base": tried}, "here").spec.model.shown == shown
    assert with_values(trial, {"model.base": base}, "here").spec == trial.spec


def test_search_leaves_test_scenes_closed_and_testing_later_trains_nothing(write_study, tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    sample = SAMPLE
    parts: dict = {}
    for name, entry in embedded_scenes("sample").items():
        shutil.copy(sample / f"{name}.h5", scenes)
        parts.setdefault(entry["part"], []).append(name)
    base = {**TINY["base"], "data": {"source": str(scenes), **parts}}
    plan = read_plan(write_study(cases={}, base=base))
    lab = Lab(tmp_path / "lab")
    uri = tracking_uri(lab)
    store = open_store(lab, uri)
    (entry,) = plan.entries
    job = job_of(entry, lab, uri, study_run(store, "tiny", ""), test=False)
    away = tmp_path / "away"
    away.mkdir()
    for name in parts["test"]:
        (scenes / f"{name}.h5").rename(away / f"{name}.h5")
    epochs: list[float] = []
    run_worker(job, torch.device("cpu"), lambda metrics: epochs.append(metrics["epoch"]))
    assert epochs == [1, 2]
    run = trial_runs(store)[entry.key]
    assert (run.info.status, run.data.tags[tag.TESTED]) == ("FINISHED", "false")
    assert not [name for name in run.data.metrics if name.startswith("test_")]
    assert reconcile(plan, store, lab).entries[0].state == "resume"

    for name in parts["test"]:
        (away / f"{name}.h5").rename(scenes / f"{name}.h5")
    state = (lab.checkpoints(entry.key) / STATE).stat()
    told: list[dict] = []
    run_worker(replace(job, test=True), torch.device("cpu"), told.append)
    assert told
    assert not [metrics for metrics in told if "epoch" in metrics], "only the test was left"
    assert (lab.checkpoints(entry.key) / STATE).stat().st_mtime_ns == state.st_mtime_ns
    done = reconcile(plan, store, lab).entries[0]
    assert done.state == "done"
    assert done.run is not None
    assert done.run.id == run.info.run_id
    assert "test_psnr" in done.run.metrics


def test_rungs_leave_the_last_epoch_to_the_trial():
    from mhiflab.execute.search import scheduler_of

    wanted = Scheduler(name="asha", grace_epochs=2, reduction=3)
    space = {"train.lr": Range(uniform=(0, 1))}
    searched = Search(space=space, objectives=PSNR, scheduler=wanted)
    rungs = scheduler_of(searched, 18)._brackets[0]._rungs
    milestones = sorted(milestone for milestone, _ in rungs)
    assert milestones == [2, 6]
    assert all(b / a == 3 for a, b in pairwise(milestones))
