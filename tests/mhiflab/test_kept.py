"""What an earlier version recorded stays readable, and shipped studies keep their run keys.

The files in `kept` are of commit 588bc23. `lab.tar.xz` is what `mhiflab run` of tiny.yaml, then of
found.yaml (a search), left in /kept, after `mhiflab gc` and without pictures (`quicklook.npz`),
which are too big to keep; host, user and system in it have neutral names. Beside it lie the tables
of both and the export of the first.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

# All that these tests import of both packages; the rest is the command, MLflow and files.
from feinfn.config import DataConfig
from feinfn.data.source import EMBEDDED, Survey
from feinfn.errors import UserError
from mhiflab.paths import experiments_dir, shipped_files
from mhiflab.plan.plan import read_plan
from mhiflab.record.archive import archived_data
from mhiflab.study.read import PAPER_KEYS
from mhiflab.study.spec import ON_DISK, DataAccess
from mhiflab.study.yaml_values import read_yaml

KEPT = Path(__file__).parent / "kept"
RUN_KEYS = KEPT / "run_keys.json"
CASES = {
    "without": "9ab072b7498597117dac67fd8f0833ffb744ef409a2cfca531e66b11d2df1986",
    "full": "2c09c017be851e877131b90754abd0923530bcf8b6223a58a5e19371c0e616fd",
}
"""The run keys of tiny.yaml by case."""
WAITING = f"{'0' * 60}beef"
"""The run key in `kept/spool`: a run that could not reach MLflow, as commit d17495b left it."""
STUDIES = ("tiny", "found")
PREDICT = """
import sys
import numpy as np
from mlflow import pyfunc
given = dict(np.load(sys.argv[1]))
given = {name: given[name] for name in ("hsi", "msi")}
np.save(sys.argv[2], [pyfunc.load_model(model).predict(given) for model in sys.argv[3:]])
"""
"""A program that knows MLflow alone: fuse what a file holds with each of some models."""
ARCHIVED = archived_data(experiments_dir() / "paper" / "record" / "laptop")


def resolve(config: DataConfig) -> DataConfig:
    if config.source in EMBEDDED:
        return ON_DISK.resolve(config)
    try:
        return ARCHIVED.resolve(config)
    except UserError:
        return config


def survey(config: DataConfig) -> Survey:
    """Tell data on no machine but their owner's to be empty: a key follows its spec alone then."""
    if config.source in EMBEDDED:
        return ON_DISK.survey(config)
    try:
        return ARCHIVED.survey(config)
    except KeyError:
        return Survey("", ())


def run_keys() -> dict[str, list[str]]:
    """Return the run keys of all shipped studies and of their smoke variants by name."""
    found = {}
    for _, path in sorted(shipped_files().items()):
        for smoke in (False, True) if not PAPER_KEYS & read_yaml(path).keys() else ():
            plan = read_plan(path, smoke, DataAccess(resolve, survey))
            found[plan.name] = [entry.key for entry in plan.entries]
    return found


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """The earlier version's lab, in the folder that commands of this test run in."""
    for name in STUDIES:
        shutil.copy(KEPT / f"{name}.yaml", tmp_path)
    with tarfile.open(KEPT / "lab.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "lab"


@pytest.fixture
def call(mhiflab) -> Callable[..., str]:
    """Return a function that runs the command and returns what it printed."""

    def output(*words: object) -> str:
        done = mhiflab(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return output


def predicted(models: list[str], folder: Path, **environment: str) -> np.ndarray:
    """Return what each model makes of the kept images, in a process of its own."""
    words = [sys.executable, "-c", PREDICT, KEPT / "predictions.npz", folder / "found.npy", *models]
    done = subprocess.run(
        list(map(str, words)),
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "found.npy")


def check_prediction(found: np.ndarray, case: str) -> None:
    expected = np.load(KEPT / "predictions.npz")[case]
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    # Other machines add the same numbers in another order.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def model_folder(lab: Path, case: str) -> Path:
    """Return the folder of a case's model, found without MLflow."""
    for path in lab.glob("artifacts/*/artifacts/model/MLmodel"):
        if yaml.safe_load(path.read_text())["metadata"]["run_key"] == CASES[case]:
            return path.parent
    raise AssertionError(f"no model of {case}")


def rendered(folder: Path) -> dict[str, bytes]:
    """Return the files of a rendered folder but pictures, which Matplotlib's version decides on."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".png"}


def test_shipped_studies_keep_their_run_keys():
    found, kept = run_keys(), json.loads(RUN_KEYS.read_text())
    changed = [name for name in {**found, **kept} if found.get(name) != kept.get(name)]
    assert changed == [], f"where that is meant, write them anew: python {__file__}"


@pytest.mark.parametrize("study", STUDIES)
def test_nothing_of_a_recorded_study_is_executed_again(study, lab, call):
    assert "0 of 2 trials to execute (2 done)" in call("plan", f"{study}.yaml")


def test_a_recorded_search_is_complete(lab, call):
    said = call("plan", "found.yaml")
    assert "3 of 3 suggestions recorded; best so far #1 (omega_0 12.7731): 20.6056" in said


def test_status_tells_what_was_recorded(lab, call):
    said = call("status", "tiny.yaml")
    for key, psnr in zip(CASES.values(), ("18.26", "19.78"), strict=True):
        (line,) = (line for line in said.splitlines() if key[:12] in line)
        assert line.split()[1:5] == ["1", "done", "2/2", psnr]


@pytest.mark.parametrize("study", STUDIES)
def test_tables_of_a_recorded_study_are_the_same_bytes(study, lab, call):
    call("table", f"{study}.yaml")
    assert rendered(lab / "rendered" / study) == rendered(KEPT / "rendered" / study)


def test_tables_of_exported_runs_are_the_same_bytes(tmp_path, call):
    shutil.copy(KEPT / "tiny.yaml", tmp_path)
    call("table", "tiny.yaml", "--record", KEPT / "record")
    assert rendered(tmp_path / "lab" / "rendered" / "tiny") == rendered(KEPT / "rendered" / "tiny")


def test_recorded_runs_are_exported_as_the_same_bytes(lab, call, tmp_path):
    call("export", "tiny.yaml", "--out", "record")

    def files(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.json")}

    assert files(tmp_path / "record") == files(KEPT / "record")


def test_the_tables_of_a_search_follow_from_its_exported_runs(lab, call, tmp_path):
    # The search's first suggestion is a run of the other study, too.
    for study in ("found", "tiny"):
        call("export", f"{study}.yaml", "--out", "record")
    shutil.rmtree(lab)
    call("table", "found.yaml", "--record", "record")
    assert rendered(lab / "rendered" / "found") == rendered(KEPT / "rendered" / "found")


def test_recorded_models_load_by_the_module_that_they_name(lab, tmp_path):
    folders = [model_folder(lab, case) for case in CASES]
    for folder in folders:
        described = yaml.safe_load((folder / "MLmodel").read_text())
        # MLflow imports it by this name, wherever the code lies now.
        assert described["flavors"]["python_function"]["loader_module"] == "mhiflab.packaged"
    found = predicted(list(map(str, folders)), tmp_path)
    for prediction, case in zip(found, CASES, strict=True):
        check_prediction(prediction, case)


def recorded_run(lab: Path, case: str) -> Run:
    """Return a case's run as MLflow finds it."""
    client = MlflowClient(tracking_uri=f"sqlite:///{lab / 'mlflow.db'}")
    (experiment,) = (one for one in client.search_experiments() if one.name == "mhiflab")
    wanted = f"tags.`mhiflab.run_key` = '{CASES[case]}' and tags.`mhiflab.kind` = 'trial'"
    (run,) = client.search_runs([experiment.experiment_id], wanted)
    return run


def test_mlflow_finds_a_recorded_model_by_its_run(lab, call, tmp_path):
    # `run` in a lab that was moved lets its record name the artifacts beside it.
    call("run", "tiny.yaml")
    model = f"runs:/{recorded_run(lab, 'full').info.run_id}/model"
    uri = f"sqlite:///{lab / 'mlflow.db'}"
    (found,) = predicted([model], tmp_path, MLFLOW_TRACKING_URI=uri)
    check_prediction(found, "full")


def test_a_report_is_stored_with_the_run_of_its_recorded_study(lab, call):
    parent = recorded_run(lab, "full").data.tags["mlflow.parentRunId"]
    assert f"with the run {parent} of tiny" in call("report", "tiny.yaml")


def own(tags: dict[str, str]) -> set[str]:
    return {name for name in tags if name.startswith("mhiflab.")}


@pytest.mark.parametrize("case", CASES)
def test_a_new_run_is_recorded_under_the_names_of_old_ones(case, lab, recorded):
    # `recorded` holds the same trials as the lab, and seconds of another machine.
    new, old = recorded_run(recorded[0].parent / "lab", case).data, recorded_run(lab, case).data
    assert new.params == old.params
    # The search, which the lab holds too, marks its default; the rest is MLflow's own.
    assert own(new.tags) == {name for name in own(old.tags) if "search" not in name}
    # Only a driver makes a forecast; size of a network and seconds of a test are metrics since.
    of_old = {name for name in old.metrics if "forecast" not in name}
    assert new.metrics.keys() == of_old | {"parameters", "test_s_per_mpx"}


def test_a_run_that_waited_in_an_earlier_lab_is_uploaded_whole(lab, call):
    shutil.copytree(KEPT / "spool", lab / "spool", dirs_exist_ok=True)
    assert "Nothing waits any more" in call("sync")
    client = MlflowClient(tracking_uri=f"sqlite:///{lab / 'mlflow.db'}")
    (experiment,) = (one for one in client.search_experiments() if one.name == "mhiflab")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`mhiflab.run_key` = '{WAITING}'")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "FeINFN seed 1")
    assert (run.info.start_time, run.info.end_time) == (1_790_000_000_000, 1_790_000_060_000)
    assert run.data.params == {"train.lr": "0.001"}
    assert run.data.tags["mhiflab.protocol"] == "cave_x4"
    history = client.get_metric_history(run.info.run_id, "val_psnr")
    assert [(point.step, point.value) for point in history] == [(1, 21.0), (2, 22.0)]
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["d"]
    for name in ("table.csv", "model/config.json"):
        assert Path(client.download_artifacts(run.info.run_id, name)).read_text()
    assert not list((lab / "spool").iterdir())


def test_a_recorded_run_fuses_files(lab, call, tmp_path):
    given = np.load(KEPT / "predictions.npz")
    for name in ("hsi", "msi"):
        np.save(tmp_path / f"{name}.npy", given[name][0])
    words = ["--hsi", "hsi.npy", "--msi", "msi.npy", "--out", "fused.npy"]
    call("fuse", *words, "--run", CASES["full"][:12])
    check_prediction(np.load(tmp_path / "fused.npy")[None], "full")


if __name__ == "__main__":
    RUN_KEYS.write_text(json.dumps(run_keys(), indent=1) + "\n")
