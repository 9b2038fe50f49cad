"""Studies of other models and of classical methods, under the protocol and record of all."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from tiny import ONE_OF_EACH, TINY

from feinfn.errors import UserError
from feinfn.methods.registry import MODELS
from feinfn.methods.weights import load_model
from mhiflab.plan.plan import read_plan
from mhiflab.record import tag
from mhiflab.study.expand import expand
from mhiflab.study.identity import canonical, run_key
from mhiflab.study.read import read_study
from mhiflab.study.smoke import NARROW
from mhiflab.study.spec import parse_trial

CASES = {
    "bicubic": {"label": "Bicubic", "set": {"model.name": "bicubic"}},
    "gsa": {"label": "GSA", "set": {"model.name": "gsa"}},
    "ssrnet": {"label": "SSRNet", "set": {"model.name": "ssrnet"}},
    "own": {"label": "FeINFN"},
}
BASE = {**TINY["base"], "data": ONE_OF_EACH, "resources": {"workers": 0}}


def test_every_kind_of_method_runs_under_one_study(mhiflab, without_ray, write_study, tmp_path):
    study = write_study(cases=CASES, seeds=[1, 2], base=BASE)
    planned = mhiflab("plan", study)
    assert "6 of 6 trials" in planned.stdout, planned.stdout + planned.stderr
    ran = mhiflab("run", study)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # No run like these is on record; the first epoch of a network tells what its trials will take.
    assert "Expected: not known yet" in ran.stdout
    assert "Expected: about" in ran.stdout
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'lab' / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("mhiflab").experiment_id])
    runs = [run for run in found if run.data.tags[tag.KIND] == "trial"]
    assert len(runs) == 6
    by_case = {run.data.tags["mhiflab.case"]: run for run in runs}
    table = pd.read_csv(tmp_path / "lab" / "rendered" / "tiny" / "table.csv").set_index("method")
    # Bicubic as a method is what every method starts from.
    metrics = ["psnr_mean", "sam_mean", "ergas_mean", "ssim_mean"]
    first = table.index[0]
    np.testing.assert_allclose(table.loc["Bicubic", metrics], table.loc[first, metrics], rtol=1e-6)
    assert table.loc["GSA", "psnr_mean"] > table.loc["Bicubic", "psnr_mean"] + 3
    assert np.isnan(table.loc["GSA", "psnr_std"])
    assert table.loc["SSRNet", "psnr_std"] > 0
    for case, run in by_case.items():
        assert run.data.metrics["fuse_seconds"] > 0
        names = {one.path for one in client.list_artifacts(run.info.run_id)}
        assert ("model" in names) == (case in MODELS or case == "own")
    weights = client.download_artifacts(
        by_case["ssrnet"].info.run_id, "model/best.safetensors", str(tmp_path)
    )
    assert type(load_model(weights)) is MODELS["ssrnet"]
    provenance = client.download_artifacts(by_case["gsa"].info.run_id, "spec.json", str(tmp_path))
    assert json.loads(Path(provenance).read_text())["model"]["name"] == "gsa"
    assert "0 of 6 trials" in mhiflab("plan", study).stdout
    refused = mhiflab("robustness", study, "--case", "gsa")
    assert refused.returncode == 1
    assert "expected a trained network" in refused.stderr


def test_a_case_of_another_model_takes_only_band_counts_from_the_base(write_study):
    base = {**TINY["base"], "model": {**TINY["base"]["model"], "msi_bands": 4}}
    study = write_study(cases={"mst": {"label": "MST", "set": {"model.name": "mst"}}}, base=base)
    (trial,) = expand(read_study(study), "study")
    assert trial.spec.model == MODELS["mst"].config_type(msi_bands=4)


def test_base_and_projection_go_from_one_learned_method_to_another(write_study):
    model = {"base": "gsa", "consistency": "msi", "feat_dim": 4}
    names = ("residual", "gsa")
    cases = {name: {"label": name, "set": {"model.name": name}} for name in names}
    study = write_study(cases=cases, base={**TINY["base"], "model": model})
    learned, classical = expand(read_study(study), "study")
    expected = MODELS["residual"].config_type(base="gsa", consistency="msi")
    assert learned.spec.model == expected
    assert classical.spec.model.name == "gsa"


def test_physics_that_a_trial_rules_out_is_told_before_it_runs(write_study):
    noisy = {"preset": "cave_x4", "hsi_snr_db": 30}
    for model, protocol, told in (
        ({"base": "gsa"}, noisy, r"protocol\.hsi_snr_db.*data\.inputs: patch"),
        ({"consistency": "msi"}, {"preset": "cave_x4", "srf": "measured"}, r"model\.consistency"),
    ):
        base = {**TINY["base"], "model": model, "protocol": protocol, "resources": {"workers": 0}}
        with pytest.raises(UserError, match=told):
            read_plan(write_study(base=base, cases={}))


def test_keys_of_classical_methods_depend_on_what_they_see_alone():
    def key(name, seed=1, **train):
        return run_key(parse_trial({"model": {"name": name}, "train": train}, seed, "x")[0], "f")

    assert key("gsa") == key("gsa", 2) == key("gsa", lr=1e-3)
    assert key("gsa") != key("cnmf")
    assert key("ssrnet") != key("ssrnet", 2)
    assert key("ssrnet") != key("ssrnet", lr=1e-3)
    assert key("ssrnet") != key("restfnet")


def test_naming_feinfn_changes_no_key():
    own = parse_trial({"model": {"feat_dim": 8}}, 1, "x")[0]
    named = parse_trial({"model": {"feat_dim": 8, "name": "feinfn"}}, 1, "x")[0]
    assert own == named
    assert "name" not in canonical(own, "f")["spec"]["model"]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"name": "ssrnett"}, "did you mean 'ssrnet'"),
        ({"name": "mst", "widht": 3}, "did you mean 'width'"),
        ({"name": "mst", "width": "3"}, "model.width"),
        ({"name": "gsa", "width": 3}, "unknown key 'model.width'"),
        ({"featdim": 3}, "did you mean 'feat_dim'"),
        ({"name": "mst", "preset": "released"}, "presets are feinfn's"),
    ],
)
def test_wrong_model_settings_are_told(model, told):
    with pytest.raises(UserError, match=re.escape(told)):
        parse_trial({"model": model}, 1, "study.yaml")


def test_working_in_parts_is_refused_for_other_models(write_study):
    base = {**TINY["base"], "resources": {"workers": 0, "memory_mib": 500}}
    study = write_study(cases={"mst": {"label": "MST", "set": {"model.name": "mst"}}}, base=base)
    with pytest.raises(UserError, match=r"resources\.memory_mib: found 500.*'mst'"):
        read_plan(study)


def test_search_of_a_classical_method_is_refused(write_study):
    search = {"space": {"train.lr": {"choice": [1e-3, 1e-2]}}, "objectives": {"val_psnr": "max"}}
    study = write_study(cases={"gsa": CASES["gsa"]}, search=search)
    with pytest.raises(UserError, match="a model that is trained"):
        read_plan(study)


def test_smoke_variant_of_a_study_of_methods_makes_feinfn_small_alone(write_study):
    study = write_study(cases=CASES, smoke={"set": {"model.decoder_layers": 1}})
    trials = {t.case: t for t in expand(read_study(study, smoke=True), "study")}
    assert trials["ssrnet"].spec.model == MODELS["ssrnet"].config_type()
    assert trials["own"].spec.model.feat_dim == NARROW["model.feat_dim"]
    assert trials["own"].spec.model.decoder_layers == 1
