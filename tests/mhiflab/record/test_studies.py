"""Runs of studies in MLflow's UI: their views, their means, and their descriptions."""

import json
import shutil
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
from mlflow import MlflowClient

from feinfn.metrics.label import CONVENTION, METRICS
from mhiflab.paths import Lab
from mhiflab.plan.plan import plan_refresher
from mhiflab.record import tag
from mhiflab.record.artifacts import group_means
from mhiflab.record.finished import RecordedRun
from mhiflab.record.store import open_store, tracking_uri
from mhiflab.record.studies import VIEW, describe_study, find_study, study_address, study_run
from mhiflab.render.paper import describe_plan


def test_address_of_a_study_and_nothing_else_is_printed(recorded, mhiflab):
    study, _ = recorded
    done = mhiflab("ui", study, "--lab", study.parent / "lab", "--port", 5001)
    (address,) = done.stdout.splitlines()
    start, _, query = address.partition("?")
    assert start == "http://127.0.0.1:5001/#/experiments/1/runs"
    words = parse_qs(query)
    assert words["workflowType"] == ["machine_learning"]
    store = open_store(Lab(study.parent / "lab"), tracking_uri(Lab(study.parent / "lab")))
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(experiment.tags[VIEW + words["viewStateShareKey"][0]])
    assert view["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "mhiflab.case"}]
    runs = store.client.search_runs([store.experiment_id], view["searchFilter"])
    assert len(runs) == 4
    named = {f"metrics.`{name}`" for name in runs[0].data.metrics}
    named |= {f"tags.`{name}`" for name in runs[0].data.tags}
    assert named.issuperset(view["selectedColumns"])


def test_study_that_an_earlier_version_recorded_has_an_address(recorded):
    study, _ = recorded
    lab = Lab(study.parent / "lab")
    store = open_store(lab, tracking_uri(lab))
    query = parse_qs(study_address(store, "another", "http://host/").partition("?")[2])
    (filters,) = query["searchFilter"]
    assert filters == "tags.`mhiflab.kind` = 'trial' and tags.`mhiflab.study` = 'another'"
    assert query["orderByKey"] == ["metrics.`test_psnr`"]


def test_run_of_a_study_carries_the_means_of_its_cases_and_its_table(recorded, tmp_path):
    study, _ = recorded
    lab = Lab(tmp_path / "lab")
    shutil.copytree(study.parent / "lab", lab.root)
    plan = plan_refresher(study, False, lab)()
    for _ in range(2):
        describe_plan(plan, False, lab)
    client = MlflowClient(tracking_uri(lab))
    store = open_store(lab, tracking_uri(lab))
    parent = client.get_run(find_study(store, "tiny"))
    for case in ("full", "without"):
        runs = [entry.run.metrics for entry in plan.finished if entry.trial.case == case]
        mean = sum(metrics["test_psnr"] for metrics in runs) / len(runs)
        assert abs(parent.data.metrics[f"test_psnr/{case}"] - mean) < 1e-9
    assert len(client.get_metric_history(parent.info.run_id, "test_psnr/full")) == 1
    assert "| without |" in parent.data.tags[tag.NOTE]
    assert "mhiflab table" in parent.data.tags[tag.NOTE]


def test_case_whose_name_no_metric_may_have_is_described(tmp_path):
    lab = Lab(tmp_path)
    store = open_store(lab, tracking_uri(lab))
    run = study_run(store, "tiny", "")
    describe_study(store, "tiny", "x" * 9000, {"test_psnr/lr=[1e-3]": 30.0})
    data = store.client.get_run(run).data
    assert data.metrics == {"test_psnr/lr__1e-3_": 30.0}
    assert data.tags[tag.NOTE] == "x" * 8000


def test_mean_over_images_is_nan_if_one_has_none():
    values = {"psnr": [30.0, 40.0, 20.0], "sam": [1.0, np.nan, 2.0], "ergas": 1.0, "ssim": 1.0}
    table = pd.DataFrame({"case": ["b", "b", "a"], **values}).assign(
        scene=["x", "y", "x"], method="fused", convention=CONVENTION
    )
    means = group_means(table, ["case"], METRICS)
    assert means["psnr"].to_dict() == {"b": 35.0, "a": 20.0}
    assert np.isnan(means["sam"]["b"])
    assert means["sam"]["a"] == 2.0
    run = RecordedRun(store=None, mlflow=None)
    vars(run)["images"] = table
    assert run.means()["psnr"] == 30.0
    assert np.isnan(run.means()["sam"])
    assert run.means("x")["sam"] == 1.5
