"""Tables: what they refuse, and texts that are markup elsewhere."""

import pytest

from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.plan import Plan, plan_table, read_plan
from mhiflab.tables import _tex, collect
from mhiflab.tracking import open_store, tracking_uri


def test_tex_escapes_every_special_character_once():
    assert _tex("a\\b_{50%}~") == r"a\textbackslash{}b\_\{50\%\}\~{}"


def test_markup_in_titles_and_labels_is_text(write_study):
    cases = {"a": {"label": "Ours [/x] [bold]", "set": {}}}
    plan = read_plan(write_study(title="Title [/y]", cases=cases))
    cells = list(plan_table(plan).columns[0].cells)
    assert cells == [r"Ours \[/x] \[bold]"]


def test_mixed_test_scenes_are_refused(write_study, tmp_path):
    cases = {
        "a": {"label": "a", "set": {}},
        "b": {"label": "b", "set": {"data.test": ["superballs_ms"]}},
    }
    plan = read_plan(write_study(cases=cases))
    done = tuple(type(e)(e.trial, e.fingerprint, e.key, "done", None) for e in plan.entries)
    lab = Lab(tmp_path / "lab")
    store = open_store(lab, tracking_uri(lab))
    with pytest.raises(UserError, match="cannot mix test scenes"):
        collect(Plan(plan.name, plan.path, plan.study, done), store)


def test_relative_sqlite_uri_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///own.db")
    assert tracking_uri(Lab(tmp_path)) == f"sqlite:///{tmp_path}/own.db"
