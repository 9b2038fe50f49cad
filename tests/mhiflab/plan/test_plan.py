"""What a plan says: states, reasons, costs; and how fast it says it."""

import gc
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from mlflow.entities import Run
from tiny import TINY

from feinfn.errors import UserError
from feinfn.files import STATE
from mhiflab.execute.driver import only_driver
from mhiflab.paths import Lab
from mhiflab.plan.checks import check_trial
from mhiflab.plan.forecast import (
    OVERHEAD,
    RATE,
    STEP_FLOP,
    Work,
    forecast,
    pace_of_test,
    recorded_speeds,
    speed_metrics,
    steps_per_epoch,
)
from mhiflab.plan.plan import Plan, plan_refresher, read_plan, reconcile
from mhiflab.plan.show import counts_line, reasons, work_of
from mhiflab.record import tag
from mhiflab.study import spec
from mhiflab.study.expand import Trial
from mhiflab.study.identity import spec_hash
from mhiflab.study.settings import flatten


def run_in(status: str, **tags: str) -> Run:
    """Return what the plan reads of a recorded run."""
    data = SimpleNamespace(tags=tags, metrics={}, params={})
    return SimpleNamespace(info=SimpleNamespace(status=status), data=data)  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def given_runs(monkeypatch) -> None:
    """Let a plan take the runs that a test gives for those of a store."""
    monkeypatch.setattr("mhiflab.plan.plan.find_runs", lambda runs, tags: runs)
    monkeypatch.setattr("mhiflab.plan.plan.by_key", lambda runs: runs or {})
    lost = SimpleNamespace(why=lambda *trial: "")
    monkeypatch.setattr("mhiflab.plan.plan.LostRuns", lambda store, runs: lost)


@pytest.fixture
def study_plan(write_study) -> Callable[[], Plan]:
    return lambda: read_plan(write_study(seeds=[1, 2, 3]))


def test_every_state_is_told(study_plan, tmp_path):
    wanted, lab = study_plan(), Lab(tmp_path / "lab")
    keys = [entry.key for entry in wanted.entries]
    runs = {
        keys[0]: run_in("FINISHED"),
        keys[1]: run_in("FAILED", **{tag.ERROR: "it burnt"}),
        keys[2]: run_in("RUNNING"),
        keys[3]: run_in("KILLED"),
    }
    for key in keys[2:4]:
        state = lab.checkpoints(key) / STATE
        state.parent.mkdir(parents=True)
        state.touch()
    found = reconcile(wanted, runs, lab)
    assert [e.state for e in found.entries] == ["done", "failed", "resume", "resume", "new", "new"]
    assert counts_line(found) == "4 of 6 trials to execute (1 done, 2 resume, 2 new, 1 failed)"
    assert reasons(found) == ["without, seed 2 failed: it burnt"]
    with only_driver(lab, "tiny"):
        states = [e.state for e in reconcile(wanted, runs, lab).entries]
    assert states == ["done", "failed", "running", "resume", "new", "new"]
    # A trial that runs elsewhere is not executed again.
    assert keys[2] not in [e.key for e in replace(found, entries=found.entries[:2]).missing]


def test_one_blocked_trial_leaves_the_others(write_study):
    cases = {
        "odd": {"label": "odd", "set": {"model.hsi_bands": 30}},
        "good": {"label": "good"},
    }
    found = read_plan(write_study(cases=cases))
    assert [e.state for e in found.entries] == ["blocked", "new"]
    assert [e.trial.case for e in found.missing] == ["good"]
    assert [e.trial.case for e in found.unfinished] == ["odd", "good"]
    (line,) = reasons(found)
    assert line.startswith("odd, seed 1 blocked: ")
    assert "expected model.hsi_bands = 30" in line
    with pytest.raises(UserError, match=r"expected model\.hsi_bands = 30"):
        read_plan(write_study(cases={"odd": cases["odd"]}))


def test_scenes_of_another_sensor_are_refused_with_a_projection(write_study):
    cases = {
        "none": {"label": "none"},
        "msi": {"label": "msi", "set": {"model.consistency": "msi"}},
        "gsa": {"label": "gsa", "set": {"model.name": "gsa", "model.consistency": "msi"}},
    }
    base = {**TINY["base"], "resources": {"workers": 0}}
    entries = {e.trial.case: e for e in read_plan(write_study(base=base, cases=cases)).entries}
    data = entries["msi"].survey
    assert data is not None
    shifted = tuple(550 + 0.99 * (nm - 550) for nm in data.training_nm or ())
    scenes = tuple(
        replace(s, wavelengths_nm=shifted) if s.part == "test" else s for s in data.scenes
    )
    other = replace(data, scenes=scenes)
    for case in ("none", "gsa"):
        check_trial(entries[case].trial, other)
    check_trial(entries["msi"].trial, data)
    with pytest.raises(UserError, match="found other band centres than those of the training"):
        check_trial(entries["msi"].trial, other)


def test_changed_data_block_a_begun_trial_until_they_are_accepted(write_study, tmp_path):
    lab = Lab(tmp_path / "lab")
    wanted = read_plan(write_study(cases={}))
    (entry,) = wanted.entries
    tags = {tag.STUDY: "tiny", tag.CASE: "base", tag.SEED: "1", tag.FINGERPRINT: "0" * 64}
    begun = {"other": run_in("KILLED", **tags, **{tag.SPEC_HASH: spec_hash(entry.trial.spec)})}
    (found,) = reconcile(wanted, begun, lab).entries
    assert found.state == "blocked"
    assert "the data changed since this trial began (fingerprint 000000000000 then" in found.why
    (accepted,) = reconcile(wanted, begun, lab, new_data=True).entries
    assert accepted.state == "new"
    # Another spec is no reason, and a finished run on the old data is told.
    other = {"other": run_in("KILLED", **tags, **{tag.SPEC_HASH: "x"})}
    again = {"other": run_in("FINISHED", **tags, **{tag.SPEC_HASH: spec_hash(entry.trial.spec)})}
    for runs, lines in ((other, 0), (again, 1)):
        found = reconcile(wanted, runs, lab)
        assert found.entries[0].state == "new"
        assert len(reasons(found)) == lines
    (line,) = reasons(found)
    assert "has other data (fingerprint 000000000000 then" in line
    assert "or an earlier version read them otherwise, which the record does not tell apart" in line
    scenes = [replace(x, notes=("The file declares it.",)) for x in entry.survey.scenes]
    survey = replace(entry.survey, scenes=tuple(scenes))
    declared = replace(wanted, entries=(replace(entry, survey=survey),))
    (line,) = reasons(reconcile(declared, again, lab))
    assert line.endswith(". What is read from files now: The file declares it.")


def finished(trial: Trial, pace_s: float, device: str = "cpu/direct", **changes: str) -> Run:
    """Return a run of a trial, or of one with some other settings, at so many seconds a pixel."""
    run = run_in("FINISHED", **{tag.DEVICE: device})
    run.data.metrics.update({RATE: 2 * 32**2, STEP_FLOP: pace_s * (2 * 32**2) ** 2, OVERHEAD: 7.0})
    settings = {name: str(value) for name, value in flatten(asdict(trial.spec)).items()}
    run.data.params.update({**settings, **changes})
    return run


def test_forecast_follows_the_nearest_recorded_runs(write_study):
    (entry,) = read_plan(write_study(cases={})).entries
    trial, survey = entry.trial, entry.survey
    assert survey is not None
    work = Work(trial.spec, trial.resources, survey)

    def seconds(*runs: Run, **resources: float) -> float | None:
        other = replace(work, resources=replace(trial.resources, **resources))
        return other.seconds(recorded_speeds(runs))

    pixels = 2 * steps_per_epoch(trial.spec, survey) * 2 * 32**2
    known = finished(trial, 1e-3)
    assert seconds(known) == pytest.approx(7 + 1e-3 * pixels)
    assert seconds(known, cpus_per_worker=2.0) == pytest.approx(7 + 1e-3 * pixels / 2)
    assert seconds(known, workers=2) == pytest.approx(7 + 1e-3 * pixels / 2)
    assert seconds(known, gpus_per_worker=0.5) is None, "CPUs say nothing about a GPU"
    wider = finished(trial, 5e-3, **{"model.feat_dim": "8"})
    assert seconds(wider) == pytest.approx(7 + 5e-3 * pixels), "better than nothing"
    assert seconds(wider, known) == pytest.approx(7 + 1e-3 * pixels)
    assert seconds(known, finished(trial, 3e-3)) == pytest.approx(7 + 2e-3 * pixels)
    assert seconds(finished(trial, 1e-3, **{"model.name": "mst"})) is None
    assert seconds(run_in("FINISHED")) is None
    assert work.speed(2, 1e-3 * pixels).pace_s == pytest.approx(1e-3)


def test_forecast_of_tests_scales_with_their_pixels(write_study):
    unbounded = {"resources.memory_mib": None, "resources.recompute": False}
    (entry,) = read_plan(
        write_study(cases={"gsa": {"label": "GSA", "set": {"model.name": "gsa", **unbounded}}})
    ).entries
    work, survey = work_of(entry), entry.survey
    assert survey is not None
    doubled = tuple(
        replace(scene, shape_SHW=(31, 2 * scene.shape_SHW[1], scene.shape_SHW[2]))
        for scene in survey.scenes
    )
    larger = replace(work, survey=replace(survey, scenes=doubled))
    assert larger.test_px == 2 * work.test_px
    runs = [timed(work, 0.0, test_s) for test_s in (3.0, 4.0, 8.0)]
    assert work.seconds(recorded_speeds(runs)) == pytest.approx(5)
    assert larger.seconds(recorded_speeds(runs)) == pytest.approx(9)
    # A prepared file may hold several images.
    stored = tuple(replace(scene, images=3) for scene in survey.scenes)
    several = replace(work, survey=replace(survey, scenes=stored))
    assert several.test_images == 3 * work.test_images
    assert several.seconds(recorded_speeds(runs)) == pytest.approx(13)


def test_forecast_of_a_training_counts_its_test_by_pixels_too(write_study):
    (entry,) = read_plan(write_study(cases={})).entries
    work = work_of(entry)
    tested, untested = timed(work, 60.0, 10.0), timed(work, 60.0, None)
    assert tested.data.metrics["overhead_s"] == pytest.approx(1)
    assert tested.data.metrics["forecast_error"] == pytest.approx(71 / 50 - 1)
    assert work.seconds(recorded_speeds([tested])) == pytest.approx(71)
    # Suggestions of a search are not tested: they say nothing about a test.
    assert work.seconds(recorded_speeds([tested, untested, untested])) == pytest.approx(71)
    # A training that was lost before its test has no rate.
    lost = timed(work, 0.0, 10.0)
    lost.data.metrics["epoch"] = 2
    assert work.seconds(recorded_speeds([lost])) is None
    # Earlier versions counted the test as overhead.
    untested.data.metrics["overhead_s"] = 11.0
    assert work.seconds(recorded_speeds([untested])) == pytest.approx(71)


def timed(work: Work, trained_s: float, test_s: float | None) -> Run:
    """Return a run with an overhead of a second and a forecast of 50."""
    run = run_in("FINISHED", **{tag.DEVICE: "cpu/direct"})
    settings = flatten(spec.settings_of(work.spec))
    run.data.params.update({name: str(value) for name, value in settings.items()})
    if test_s is not None:
        run.data.metrics.update(pace_of_test(work, test_s))
    wall_s = trained_s + (test_s or 0.0) + 1.0
    run.data.metrics.update(speed_metrics(work, 1e3, trained_s, test_s or 0.0, wall_s, 50.0))
    return run


def test_forecast_without_records_waits_for_an_epoch(write_study, monkeypatch):
    (entry,) = read_plan(write_study(cases={})).entries
    assert entry.survey is not None
    work = Work(entry.trial.spec, entry.trial.resources, entry.survey)
    unknown = forecast({"a": work, "b": work}, [])
    assert unknown.line == "Expected: not known yet"
    known = forecast(unknown.unknown, [work.speed(epochs=1, seconds=1800)])
    assert known.seconds == pytest.approx({"a": 3600, "b": 3600})
    assert known.device_hours == pytest.approx(2)
    assert known.unknown == {}
    assert replace(known, slots={"a": 1, "b": 1}).line == (
        "Expected: about 2 device-hours, 2.0 h with 1 at once"
    )
    # Trials that take the whole machine wait for the others.
    assert replace(known, slots={"a": 128, "b": 1}).line == (
        "Expected: about 2 device-hours, 2.0 h with 1 or 128 at once"
    )
    assert forecast({}, []).line == ""
    # Three workers with two CPUs each hold six of thirteen.
    monkeypatch.setattr("mhiflab.plan.forecast.usable_cpus", lambda: 13)
    large = replace(work, resources=replace(work.resources, workers=3, cpus_per_worker=2.0))
    assert forecast({"a": work, "b": large}, []).slots == {"a": 13, "b": 2}


def test_reading_a_plan_leaves_collections_of_garbage_as_they_were(write_study, tmp_path):
    # With rare ones a driver waited for ever: Ray held the processes of a stopped trial.
    usual = gc.get_threshold()
    now = plan_refresher(write_study(), False, Lab(tmp_path / "lab"))
    assert gc.get_threshold() == usual
    assert now().missing
    assert gc.get_threshold() == usual
    with pytest.raises(UserError):
        plan_refresher(tmp_path / "none.yaml", False, Lab(tmp_path / "lab"))
    assert gc.get_threshold() == usual


def test_states_of_a_thousand_trials_need_one_validator_and_one_reading_of_data(
    write_study,
):
    calls = []
    disk = spec.ON_DISK
    counted = replace(disk, survey=lambda data: calls.append(data) or disk.survey(data))
    axes = {"train.lr": [i / 1000 for i in range(1, 21)], "model.omega_0": list(range(1, 6))}
    found = read_plan(write_study(cases={}, axes=axes, seeds=list(range(10))), data_access=counted)
    assert len({e.key for e in found.entries}) == 1000
    assert len(calls) == 1
