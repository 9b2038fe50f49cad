"""Run keys: what changes them and what does not."""

from dataclasses import replace

import pytest

from feinfn.config import DataConfig
from mhiflab import identity
from mhiflab.plan import read_plan
from mhiflab.spec import parse_trial

SETTINGS = {"model": {"feat_dim": 8, "omega_0": 30}, "train": {"lr": 1e-4}}


def key(settings: dict, seed: int = 1, fingerprint: str = "data") -> str:
    return identity.run_key(parse_trial(settings, seed, "here")[0], fingerprint)


@pytest.mark.parametrize(
    "same",
    [
        {"train": {"lr": 0.0001}, "model": {"omega_0": 30.0, "feat_dim": 8}},
        {**SETTINGS, "protocol": "cave_x4"},
        {**SETTINGS, "model": {**SETTINGS["model"], "preset": "released", "guide_dim": 128}},
        {**SETTINGS, "resources": {"workers": 2, "cpus_per_worker": 2}},
    ],
)
def test_key_ignores_order_spelling_defaults_and_resources(same):
    assert key(same) == key(SETTINGS)


def test_key_follows_every_value_data_and_schema(monkeypatch):
    keys = {
        key(SETTINGS),
        key({**SETTINGS, "train": {"lr": 2e-4}}),
        key({**SETTINGS, "model": {**SETTINGS["model"], "fourier_branch": False}}),
        key(SETTINGS, seed=2),
        key(SETTINGS, fingerprint="other"),
        key({**SETTINGS, "protocol": {"preset": "cave_x4", "phase_px": 1}}),
    }
    monkeypatch.setattr(identity, "SCHEMA_VERSION", 2)
    keys.add(key(SETTINGS))
    assert len(keys) == 7


def test_texts_and_the_name_of_a_protocol_are_not_identity():
    told = {"preset": "cave_x4", "name": "mine", "about": "reworded"}
    assert key({**SETTINGS, "protocol": told}) == key(SETTINGS)


def test_spec_hash_follows_settings_and_not_data():
    spec = parse_trial(SETTINGS, 1, "here")[0]
    assert identity.spec_hash(spec) == identity.spec_hash(parse_trial({**SETTINGS}, 1, "x")[0])
    assert identity.spec_hash(spec) != identity.spec_hash(parse_trial(SETTINGS, 2, "here")[0])
    assert identity.spec_hash(replace(spec, data=DataConfig())) == identity.spec_hash(spec)


def test_how_inputs_are_made_of_scenes_is_identity():
    alone = {**SETTINGS, "data": {**SETTINGS.get("data", {}), "inputs": "patch"}}
    assert key(alone) != key(SETTINGS)


def test_trial_that_stands_in_two_cases_is_executed_once(write_study):
    cases = {name: {"label": name, "set": {}} for name in ("a", "b")}
    plan = read_plan(write_study(cases=cases))
    assert len(plan.entries) == 2
    assert len(plan.missing) == 1
