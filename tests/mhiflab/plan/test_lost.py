"""Records that people edited: finished work is found again, or missed before anything starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.plan.plan import Entry, Plan, plan_refresher, read_plan
from mhiflab.record import tag
from mhiflab.record.artifacts import IMAGES_FILE
from mhiflab.record.store import EXPERIMENT, existing_store, open_store, tracking_uri
from mhiflab.record.studies import find_study, orphans, study_run
from mhiflab.study.identity import canonical, spec_hash


class Finished:
    """A lab in which every trial of a study is finished, without the work."""

    def __init__(self, lab: Lab, study: Path) -> None:
        self.lab, self.study = lab, study
        self.entries = read_plan(study).entries
        store = open_store(lab, tracking_uri(lab))
        self.client, self.experiment = store.client, store.experiment_id
        self.parent = study_run(store, "tiny", "")
        self.ids = [self.finish(entry) for entry in self.entries]

    def finish(self, entry: Entry) -> str:
        spec, data = entry.trial.spec, entry.survey.fingerprint
        tags = {
            tag.KIND: "trial",
            tag.KEY: entry.key,
            tag.SPEC_HASH: spec_hash(spec),
            tag.FINGERPRINT: data,
        }
        tags |= {
            tag.STUDY: "tiny",
            tag.CASE: entry.trial.case,
            tag.SEED: str(spec.seed),
            tag.PARENT: self.parent,
        }
        run = self.client.create_run(self.experiment, tags=tags).info.run_id
        self.client.log_text(run, json.dumps(canonical(spec, data)), "identity.json")
        self.client.log_text(run, "", IMAGES_FILE)
        self.client.set_terminated(run)
        return run

    def plan(self, repeat_lost: bool = False) -> Plan:
        return plan_refresher(self.study, False, self.lab, repeat_lost=repeat_lost)()

    def states(self, repeat_lost: bool = False) -> list[str]:
        return [entry.state for entry in self.plan(repeat_lost).entries]


@pytest.fixture
def done(tmp_path: Path, write_study: Callable[..., Path]) -> Finished:
    finished = Finished(Lab(tmp_path / "lab"), write_study())
    assert finished.states() == ["done", "done"]
    return finished


def test_deleted_run_is_not_repeated_unless_asked_for(done, mhiflab):
    done.client.delete_run(done.ids[0])
    assert done.states() == ["blocked", "done"]
    assert done.states(repeat_lost=True) == ["new", "done"]
    command = f"mlflow runs restore --run-id {done.ids[0]}"
    assert command in done.plan().entries[0].why
    for words in (("plan",), ("run",)):
        printed = mhiflab(*words, done.study, "--lab", done.lab.root)
        assert "its finished run was deleted in MLflow" in printed.stdout
        assert command in printed.stdout
        assert "0 of 2 trials to execute" in printed.stdout
    assert "1 of 2 runs are missing" in printed.stderr
    assert command in printed.stderr
    assert not done.lab.ray.exists()
    done.client.restore_run(done.ids[0])
    assert done.states() == ["done", "done"]


def test_deleted_run_that_was_unfinished_counts_as_new(done):
    done.client.update_run(done.ids[0], status="KILLED")
    done.client.delete_run(done.ids[0])
    assert done.states() == ["new", "done"]


@pytest.mark.parametrize("name", [tag.KIND, tag.KEY])
@pytest.mark.parametrize("value", ["", "another"])
def test_changed_tags_are_named(name, value, done):
    right = done.client.get_run(done.ids[1]).data.tags[name]
    if value:
        done.client.set_tag(done.ids[1], name, value)
    else:
        done.client.delete_tag(done.ids[1], name)
    (_, entry) = done.plan().entries
    assert entry.state == "blocked"
    assert f"tags of its finished run {done.ids[1]} were changed" in entry.why
    assert f"expected trial and {entry.key}" in entry.why
    done.client.set_tag(done.ids[1], name, right)
    assert done.states() == ["done", "done"]


def test_names_of_runs_and_of_the_experiment_may_change(done):
    done.client.set_tag(done.ids[0], "mlflow.runName", "the best")
    done.client.rename_experiment(done.experiment, "fusion 2026")
    assert done.states() == ["done", "done"]
    assert open_store(done.lab, tracking_uri(done.lab)).experiment_id == done.experiment
    assert done.client.get_experiment_by_name(EXPERIMENT) is None


def test_deleted_experiment_is_named_before_anything_starts(done, mhiflab):
    done.client.delete_experiment(done.experiment)
    restore = f"mlflow experiments restore --experiment-id {done.experiment}"
    for word in ("plan", "run", "status"):
        printed = mhiflab(word, done.study, "--lab", done.lab.root)
        assert printed.returncode == 1
        assert f"found experiment {EXPERIMENT} deleted, with all runs; restore it" in printed.stderr
        assert restore in printed.stderr
    with pytest.raises(UserError, match="restore it"):
        open_store(done.lab, tracking_uri(done.lab))
    done.client.restore_experiment(done.experiment)
    assert done.states() == ["done", "done"]


def test_results_that_an_earlier_database_does_not_know_are_named(tmp_path, write_study):
    lab = Lab(tmp_path / "lab")
    open_store(lab, tracking_uri(lab))
    yesterday = tmp_path / "yesterday.db"
    shutil.copy(lab.database, yesterday)
    done = Finished(lab, write_study())
    today = tmp_path / "today.db"
    lab.database.rename(today)
    shutil.copy(yesterday, lab.database)
    for entry, run in zip(done.plan().entries, done.ids, strict=True):
        assert entry.state == "blocked"
        assert f"its results lie in {lab.artifacts / run}" in entry.why
    assert done.states(repeat_lost=True) == ["new", "new"]
    shutil.copy(today, lab.database)
    assert done.states() == ["done", "done"]


def test_deleted_parent_is_made_again_and_its_children_hang_under_it(done, mhiflab):
    done.client.delete_run(done.parent)
    store = existing_store(done.lab)
    assert len(orphans(store, "tiny")) == 2
    printed = mhiflab("run", done.study, "--lab", done.lab.root)
    assert "2 runs hung under the run of study tiny, which was missing" in printed.stdout
    parent = find_study(store, "tiny")
    assert parent not in (None, done.parent)
    client = MlflowClient(tracking_uri(done.lab))
    assert {client.get_run(run).data.tags[tag.PARENT] for run in done.ids} == {parent}
    assert client.get_run(parent).info.status == "FINISHED"
    assert mhiflab("run", done.study, "--lab", done.lab.root).stdout.count("hung under") == 0
