"""Studies built on others, and their smoke variants."""

import pytest
import yaml

from feinfn.data.source import EMBEDDED
from feinfn.errors import UserError
from mhiflab.paths import experiments_dir, shipped_studies
from mhiflab.plan.plan import read_plan
from mhiflab.study.expand import expand
from mhiflab.study.read import read_study


def trials(path, smoke=False):
    return expand(read_study(path, smoke), str(path))


def test_base_takes_another_study_one_of_its_cases_or_a_file_of_settings(write_study, tmp_path):
    below = write_study(
        "below", base={"model": {"feat_dim": 4, "omega_0": 3}, "protocol": "lso_x4"}
    )
    own = {"from": "below", "model": {"omega_0": 9}, "protocol": {"phase_px": 1}}
    (first,) = trials(write_study("own", base=own, cases={}))
    assert (first.spec.model.feat_dim, first.spec.model.omega_0) == (4, 9.0)
    assert first.spec.protocol.name == "lso_x4+phase_px=1"
    case = {"from": f"{below.name}/without", "model": {"preset": "released"}}
    (second,) = trials(write_study("second", base=case, cases={}))
    assert second.spec.model.feat_dim == 128, "a preset replaces what was below it"
    assert second.spec.model.fourier_branch, "the case's value was below it too"
    (third,) = trials(write_study("third", base={"from": "below/without"}, cases={}))
    assert not third.spec.model.fourier_branch
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump({"train": {"epochs": 7}}))
    (fourth,) = trials(write_study("fourth", base={"from": "plain.yaml"}, cases={}))
    assert fourth.spec.train.epochs == 7
    (fifth,) = trials(write_study("fifth", base={"from": "demo/no_fourier"}, cases={}))
    assert not fifth.spec.model.fourier_branch, "shipped studies are known by name"


def test_a_case_with_another_model_is_a_base_as_it_is_a_case(write_study):
    base = {"model": {"preset": "released", "base": "local", "consistency": "msi"}}
    cases = {
        "plain": {"label": "plain", "set": {"model.name": "residual"}},
        "bicubic": {"label": "bicubic", "set": {"model.name": "bicubic"}},
    }
    path = write_study("other", base=base, cases=cases)
    for name, of_case in zip(cases, trials(path), strict=True):
        (own,) = trials(write_study(f"own-{name}", base={"from": f"other/{name}"}, cases={}))
        assert own.spec == of_case.spec
    with_own = {"from": "other/plain", "model": {"base": "gsa"}}
    (own,) = trials(write_study("own", base=with_own, cases={}))
    assert (own.spec.model.base, own.spec.model.consistency) == ("gsa", "msi")


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"from": "nowhere"}, "base.from: found 'nowhere', expected a study file"),
        ({"from": 3}, "base.from: found 3, expected a study"),
        ({"from": "own"}, "base.from: found 'own', which is based on this study itself"),
        (
            {"from": "demo/nothing"},
            "base.from: found 'nothing', expected one of the cases of .*no_fourier",
        ),
    ],
)
def test_bad_base_is_named(base, message, write_study):
    with pytest.raises(UserError, match=message):
        read_study(write_study("own", base=base))


@pytest.mark.parametrize("name", ["../up", "a/b", "a'b", "", ".hidden"])
def test_case_names_that_cannot_be_folders_or_tags_are_refused(name, write_study):
    with pytest.raises(UserError, match="expected letters, digits"):
        read_study(write_study(cases={name: {"label": "x"}}))


def test_study_file_with_a_quote_in_its_name_is_refused(write_study):
    with pytest.raises(UserError, match="expected letters, digits"):
        read_study(write_study("it's"))


def test_smoke_keeps_what_is_compared_and_reduces_the_rest(write_study):
    axes = {"model.feat_dim": [8, 16, 24], "train.epochs": [50, 60]}
    path = write_study(axes=axes, seeds=[5, 6], smoke={"set": {"train.lr": 0.5}})
    found = trials(path, smoke=True)
    assert {t.spec.model.feat_dim for t in found} == {8, 24}
    assert {t.spec.model.fourier_branch for t in found} == {False, True}
    assert {(t.spec.train.epochs, t.spec.train.lr, t.spec.seed) for t in found} == {(2, 0.5, 5)}
    assert {t.resources.workers for t in found} == {0}


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_has_a_small_smoke_variant_on_embedded_scenes(name):
    plan = read_plan(experiments_dir() / f"{name}.yaml", smoke=True)
    assert plan.name == f"{name}-smoke"
    assert len(plan.entries) <= 12
    for entry in plan.entries:
        assert entry.trial.spec.data.source in EMBEDDED
        assert entry.trial.spec.train.epochs <= 2
