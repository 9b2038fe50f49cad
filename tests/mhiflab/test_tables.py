"""Tables: what they refuse, and texts that are markup elsewhere."""

from dataclasses import replace

import pytest
from tiny import TINY

from feinfn.errors import UserError
from mhiflab.formats import _tex
from mhiflab.paths import Lab
from mhiflab.plan import Plan, read_plan, state_table
from mhiflab.results import collect
from mhiflab.tracking import open_store, tracking_uri


def test_tex_escapes_every_special_character_once():
    assert _tex("a\\b_{50%}~") == r"a\textbackslash{}b\_\{50\%\}\~{}"


def test_markup_in_titles_and_labels_is_text(write_study):
    cases = {"a": {"label": "Ours [/x] [bold]", "set": {}}}
    plan = read_plan(write_study(title="Title [/y]", cases=cases))
    cells = list(state_table(plan).columns[0].cells)
    assert cells == [r"Ours \[/x] \[bold]"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.test": ["superballs_ms"]}, "cannot mix test scenes"),
        # Told apart by what they do, not by name.
        (
            {"protocol.msi_snr_db": 30.0, "protocol.name": "cave_x4"},
            r"cannot mix protocols, found cave_x4 \(\w{8}\), cave_x4 \(",
        ),
    ],
)
def test_mixed_tables_are_refused(change, message, write_study, tmp_path):
    cases = {"a": {"label": "a", "set": {}}, "b": {"label": "b", "set": change}}
    base = {**TINY["base"], "protocol": "cave_x4"}
    plan = read_plan(write_study(cases=cases, base=base))
    done = tuple(replace(entry, state="done") for entry in plan.entries)
    lab = Lab(tmp_path / "lab")
    store = open_store(lab, tracking_uri(lab))
    with pytest.raises(UserError, match=message):
        collect(Plan(plan.name, plan.path, plan.study, done), store)


def test_relative_sqlite_uri_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///own.db")
    assert tracking_uri(Lab(tmp_path)) == f"sqlite:///{tmp_path}/own.db"
