"""Studies: expansion, presets, and errors that name the key."""

from dataclasses import replace
from pathlib import Path

import pytest

from feinfn.config import PRESETS, RECIPES
from feinfn.data.source import EMBEDDED
from feinfn.errors import UserError
from feinfn.methods.cost import match_parameters, parameters_of
from feinfn.protocols.named import PROTOCOLS
from mhiflab.paths import experiments_dir, shipped_studies
from mhiflab.study.expand import expand
from mhiflab.study.read import read_study
from mhiflab.study.spec import parse_trial


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


def test_one_trial_of_a_case_may_have_resources_of_its_own(write_study):
    base = {"resources": {"workers": 0, "cpus_per_worker": 2}}
    cases = {"a": {"label": "a", "first_seed": {"workers": 2}}, "b": {"label": "b"}}
    path = write_study(base=base, cases=cases, seeds=[3, 1])
    trials = expand(read_study(path), str(path))
    assert [(t.spec.seed, t.resources.workers) for t in trials] == [(3, 2), (1, 0), (3, 0), (1, 0)]
    assert {t.resources.cpus_per_worker for t in trials} == {2}
    assert {t.resources.workers for t in expand(read_study(path, smoke=True), "")} == {0}
    path = write_study(cases=cases, axes={"model.omega_0": [1, 2]}, seeds=[3, 1])
    counts = [t.resources.workers for t in expand(read_study(path), "")]
    assert counts[:4] == [2, counts[1], 2, counts[1]]
    assert set(counts[4:]) == {counts[1]}
    path = write_study(cases={"a": {"label": "a", "first_seed": {"worker": 2}}})
    for smoke in (False, True):
        with pytest.raises(UserError, match=r"cases.a.first_seed.*resources.worker.*workers"):
            expand(read_study(path, smoke), str(path))
    search = {"space": {"train.lr": {"uniform": [1, 2]}}, "objectives": {"val_psnr": "max"}}
    path = write_study(cases=cases, search=search)
    with pytest.raises(UserError, match=r"cases.a.first_seed: found it in a study with a search"):
        expand(read_study(path), str(path))


def test_preset_fills_fields_and_other_keys_override_it():
    spec, _ = parse_trial({"model": {"preset": "released", "feat_dim": 32}}, 1, "here")
    assert spec.model.feat_dim == 32
    assert spec.model.guide_dim == PRESETS["released"].guide_dim


def test_protocol_is_named_or_varied_and_a_varied_one_is_named_after_its_changes(write_study):
    base = {"protocol": "cave_x4", "train": {"preset": "released", "epochs": 3}}
    cases = {
        "own": {"label": "own"},
        "noisy": {"label": "noisy", "set": {"protocol.hsi_snr_db": 30}},
        "other": {"label": "other", "set": {"protocol": "cave_x8"}},
    }
    own, noisy, other = expand(read_study(write_study(base=base, cases=cases)), "study")
    assert own.spec.protocol == PROTOCOLS["cave_x4"]
    assert other.spec.protocol == PROTOCOLS["cave_x8"]
    assert noisy.spec.protocol.name == "cave_x4+hsi_snr_db=30"
    assert replace(noisy.spec.protocol, name="cave_x4", hsi_snr_db=None) == own.spec.protocol
    assert own.spec.train == replace(RECIPES["released"], epochs=3)


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
            "protocol: found 'cave_x5', did you mean 'cave_x8'",
        ),
        (
            "title: t\nbase: {model: {preset: best}}",
            "model.preset: found 'best', expected one of released",
        ),
        ("title: t\nbase: {model: {name: mtt}}", r"model.name: found 'mtt', did you mean 'mst'\?"),
        ("title: t\nbase: {data: {test: [moon]}}", "data.test: found 'moon', expected scenes of"),
        ("base: {}", "title: found 'nothing', expected: Field required"),
        ("title: t\ntitle: u", "key 'title' is given twice"),
        ("title: [t", "not readable as YAML"),
        ("- a", "found list, expected keys"),
        ("title: t\nseeds: []", r"seeds: found \[\], expected a list of integers >= 0, at least 1"),
        ("title: t\nseeds: [1, 1]", "expected a list.* all different"),
        (
            "title: t\nbase: {train: {lr: 1e-3}}\naxes: {train.lr.x: [1]}",
            "leads through 'lr'",
        ),
        (
            "title: t\ncases: {gsa: {label: G, set: {model.name: gsa}}, b: {label: B, start: gs}}",
            "cases.b.start: found 'gs', did you mean 'gsa'",
        ),
        (
            "title: t\ncases: {full: {label: F}, b: {label: B, start: full}}",
            "cases.b.start: found 'full', .*expected another, untrained case: upsampled",
        ),
        (
            "title: t\ncases: {upsampled: {label: U, set: {model.name: bicubic}}, b: {label: B, "
            "start: upsampled}}",
            "cases: found a case upsampled in a study with starts",
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
    study = read_study(path)
    source = study.base.get("data", {}).get("source", "sample")
    if source in EMBEDDED or Path(source).exists():
        assert expand(study, str(path))
        return
    # Data that nobody may ship: the study says how to make it, and everything else is checked.
    assert f"--out {source}" in path.read_text()
    with pytest.raises(UserError, match=r"data\.source: .* does not exist"):
        expand(study, str(path))
