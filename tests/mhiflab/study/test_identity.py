"""Run keys: what changes them and what does not."""

import copy
from dataclasses import fields, is_dataclass, replace

import pytest

from feinfn.config import DataConfig
from mhiflab.plan.plan import read_plan
from mhiflab.study import identity
from mhiflab.study.spec import parse_trial

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


def test_what_is_shown_follows_the_base_unless_it_is_set():
    def shown(**model):
        model = {"preset": "released", **model}
        return parse_trial({"model": model}, 1, "here")[0].model.shown, key({"model": model})

    plain, by_default = shown(), shown(base="local")
    assert plain == (shown(shown="image")[0], key({})) == ("image", key({"model": {"base": "lms"}}))
    assert by_default == shown(base="local", shown="difference")
    assert by_default[0] == "difference"
    assert by_default[1] != shown(base="local", shown="image")[1]


def test_trial_that_stands_in_two_cases_is_executed_once(write_study):
    cases = {name: {"label": name, "set": {}} for name in ("a", "b")}
    plan = read_plan(write_study(cases=cases))
    assert len(plan.entries) == 2
    assert len(plan.missing) == 1


def leaves(value: object, prefix: str = "") -> dict[str, object]:
    """Return the fields of nested dataclasses under dotted names."""
    found: dict[str, object] = {}
    for field in fields(value):
        one = getattr(value, field.name)
        name = prefix + field.name
        found |= leaves(one, f"{name}.") if is_dataclass(one) else {name: one}
    return found


def changed(value: object, path: str) -> object:
    """Return the dataclass with another value in one field, whether it makes sense or not."""
    head, _, rest = path.partition(".")
    old = getattr(value, head)
    copied = copy.copy(value)
    number = isinstance(old, int | float) and not isinstance(old, bool)
    new = changed(old, rest) if rest else old + 1 if number else not old if old is not None else 1.5
    object.__setattr__(copied, head, new)
    return copied


def test_every_field_changes_the_key_or_is_listed_with_a_reason():
    spec, resources = parse_trial({}, 1, "here")
    names = leaves(spec)
    # The response's table is read, and must be one; see the test of protocols by content.
    del names["protocol.srf"]
    outside = {name for name in names if identity.run_key(changed(spec, name), "data") == key({})}
    listed = {name for name in identity.UNHASHED if not name.startswith("resources.")}
    assert outside == listed - {"protocol.srf"}
    assert {f"resources.{f.name}" for f in fields(resources)} == set(identity.UNHASHED) - listed
    assert all(reason.strip() for reason in identity.UNHASHED.values())
