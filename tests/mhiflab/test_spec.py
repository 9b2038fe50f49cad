"""Studies: expansion, presets, and errors that name the key."""

from dataclasses import replace

import pytest

from feinfn.config import PRESETS
from feinfn.describe import match_parameters, parameters_of
from feinfn.errors import UserError
from mhiflab.paths import experiments_dir, shipped_studies
from mhiflab.spec import expand, parse_trial, read_study


def test_cases_axes_and_seeds_expand_in_the_order_of_the_file(write_study):
    path = write_study(axes={"model.omega_0": [10, 30]}, seeds=[3, 1])
    trials = expand(read_study(path), str(path))
    assert [(t.case, t.spec.model.omega_0, t.spec.seed) for t in trials[:4]] == [
        ("without/model.omega_0=10", 10.0, 3),
        ("without/model.omega_0=10", 10.0, 1),
        ("without/model.omega_0=30", 30.0, 3),
        ("without/model.omega_0=30", 30.0, 1),
    ]
    assert len(trials) == 8
    assert trials[0].label == "without, omega_0 10"
    assert trials[-1].spec.model.fourier_branch


def test_preset_fills_fields_and_other_keys_override_it():
    spec, _ = parse_trial({"model": {"preset": "released", "feat_dim": 32}}, 1, "here")
    assert spec.model.feat_dim == 32
    assert spec.model.guide_dim == PRESETS["released"].guide_dim


def test_case_takes_the_parameter_count_of_another(write_study):
    cases = {
        "full": {"label": "full"},
        "equal": {
            "label": "equal",
            "set": {"model.fourier_branch": False},
            "match_parameters": "full",
        },
    }
    path = write_study(cases=cases)
    full, equal = expand(read_study(path), str(path))
    counts = [parameters_of(t.spec.model) for t in (full, equal)]
    assert full.spec.model.feat_dim < equal.spec.model.feat_dim == equal.spec.model.guide_dim
    same_but = replace(full.spec.model, fourier_branch=False)
    assert equal.spec.model == match_parameters(same_but, counts[0])


def test_exponents_without_a_point_are_numbers(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("title: t\nbase: {train: {lr: 1e-4, clip_norm: 1E-4}}\n")
    (trial,) = expand(read_study(path), "here")
    assert trial.spec.train.lr == trial.spec.train.clip_norm == 0.0001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: t\nsedes: [1]", r"unknown key 'sedes'; did you mean 'seeds'\?"),
        ("title: t\nbase: {model: {feat_dims: 3}}", "'model.feat_dims'; did you mean 'feat_dim'"),
        ("title: t\nbase: {train: {learn: 3}}", "unknown key 'train.learn'.* lr,"),
        ("title: t\nbase: {seed: 3}", "unknown key 'seed'"),
        ("title: t\ncases: {a: {label: A, sets: {}}}", "'cases.a.sets'; did you mean 'set'"),
        (
            "title: t\ncases: {a: {label: A, set: {model.omega: 3}}}",
            "case a: unknown key 'model.om",
        ),
        (
            "title: t\nbase: {train: {epochs: many}}",
            "train.epochs: found 'many', expected.*integer",
        ),
        ("title: t\nbase: {train: {epochs: 2.5}}", "train.epochs: found 2.5, expected.*integer"),
        ("title: t\nbase: {train: {epochs: 0}}", "train.epochs: found 0, expected an integer >= 1"),
        ("title: t\nbase: {model: {fourier_branch: 3}}", "model.fourier_branch: found 3"),
        (
            "title: t\nbase: {protocol: cave_x5}",
            "protocol: found 'cave_x5', expected one of cave_x4",
        ),
        (
            "title: t\nbase: {model: {preset: best}}",
            "model.preset: found 'best', expected released",
        ),
        ("title: t\nbase: {data: {test: [moon]}}", "data.test: found 'moon', expected scenes of"),
        ("base: {}", "title: found 'nothing', expected: Field required"),
        ("title: t\ntitle: u", "key 'title' is given twice"),
        ("title: [t", "not readable as YAML"),
        ("- a", "found list, expected keys"),
        ("title: t\nseeds: []", r"seeds: found \[\], expected distinct values"),
        ("title: t\nseeds: [1, 1]", "expected distinct values"),
        (
            "title: t\nbase: {protocol: cave_x4}\naxes: {protocol.x: [1]}",
            "leads through 'protocol'",
        ),
        (
            "title: t\ncases: {full: {label: F}, b: {label: B, match_parameters: ful}}",
            "cases.b.match_parameters: found 'ful', did you mean 'full'",
        ),
        (
            "title: t\ncases: {a: {label: A, match_parameters: b}, b: {label: B, "
            "match_parameters: c}, c: {label: C}}",
            "cases.a.match_parameters: found 'b', expected a case without match_parameters: c",
        ),
        (
            "title: t\naxes: {model.feat_dim: [4, 8]}\ncases: {a: {label: A}, b: {label: B, "
            "match_parameters: a}}",
            "cases.b.match_parameters: found model.feat_dim in the case's set or in axes",
        ),
        ("title: t\nbase: {resources: {memory_mib: .inf}}", "resources.memory_mib: found inf"),
        ("title: t\nbase: {resources: {memory_mib: 0}}", "resources.memory_mib: found 0"),
        ("title: t\nbase: {when: 2026-01-01}", "use plain YAML values"),
    ],
)
def test_errors_name_the_key_and_the_remedy(text, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        expand(read_study(path), str(path))
    assert "bad.yaml" in str(caught.value) or "data.test" in str(caught.value)


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_valid(name):
    path = experiments_dir() / f"{name}.yaml"
    assert expand(read_study(path), str(path))
