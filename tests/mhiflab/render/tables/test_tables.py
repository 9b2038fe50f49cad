"""Tables: what they refuse, and texts that are markup elsewhere."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from printed import LONG, WIDTHS, check_printed
from rich.console import Console
from tiny import TINY, finished

from feinfn.errors import UserError
from feinfn.metrics.label import CONVENTION, METRICS
from mhiflab.console import out
from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan
from mhiflab.plan.show import state_grid
from mhiflab.record.store import tracking_uri
from mhiflab.render.pages import latex_text, markdown_text
from mhiflab.render.runs import Results, collect
from mhiflab.render.statistics.verdicts import baseline_label, compare_cases, progress
from mhiflab.render.tables.formats import formatted, print_table, table_grid, write_table
from mhiflab.render.tables.rows import Cell, Row, ranks
from mhiflab.render.tables.table import Table, notes, sidecar, study_table
from mhiflab.study.read import read_study


def test_tex_escapes_every_special_character_once():
    assert latex_text("a\\b_{50%}~") == r"a\textbackslash{}b\_\{50\%\}\~{}"
    assert latex_text("a < b | c > ‡") == r"a \textless{} b \textbar{} c \textgreater{} $^\ddagger$"
    assert latex_text("[ours] x[1]") == "{}[ours] x[1]"
    assert latex_text("*x") == "{}*x"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("**x** `y`", r"\*\*x\*\* \`y\`"),
        ("a\\|b", r"a\\\|b"),
        ("[a](b) <b> &lt; a < b & c", r"\[a\](b) \<b> \&lt; a < b & c"),
        ("snake_case_1 _x_ ~~y~~ $z$", r"snake_case_1 \_x\_ \~\~y\~\~ \$z\$"),
        ("1. first 2. second", r"1\. first 2. second"),
        ("- x #", r"\- x \#"),
        ("> x", r"\> x"),
    ],
)
def test_markdown_shows_labels_as_they_are(text, escaped):
    assert markdown_text(text) == escaped
    (_, inline, _) = MarkdownIt("commonmark").enable("strikethrough").parse(markdown_text(text))
    assert "".join(one.content for one in inline.children) == text
    assert {one.type for one in inline.children} <= {"text", "text_special"}


def row(mean: float, lacking: int = 0) -> Row:
    return Row("same", runs_lacking=lacking, values={"psnr": Cell(mean, None, None, {})})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([row(3.0), row(1.0), row(2.0)], ["best", "", "second"]),
        ([row(3.0), row(3.0), row(2.0)], ["best", "best", "second"]),
        ([row(3.0), row(3.0), row(3.0)], ["best"] * 3),
        ([row(3.0), row(2.0), row(2.0)], ["best", "second", "second"]),
        ([row(3.0), row(2.0)], ["best", ""]),
        ([row(math.nan), row(1.0), row(math.inf), row(2.0)], ["", "", "", "best"]),
        ([row(9.0, lacking=1), row(1.0), Row("x", runs_lacking=3), row(2.0)], ["", "", "", "best"]),
    ],
)
def test_rows_are_ranked_by_their_own_numbers(table, expected):
    assert ranks(table, "psnr") == expected


def test_labels_are_always_told_apart(write_study):
    names = {"gsa": "A", "cnmf": "A", "sfim": "A (gsa)", "a": "B", "b": "Bicubic upsampling"}
    names["c"] = "Bicubic upsampling (input)"
    plan = read_plan(write_study(cases={case: {"label": x} for case, x in names.items()}))
    assert list(plan.labels.values()) == [
        "A (gsa) (gsa)",
        "A (cnmf)",
        "A (gsa)",
        "B",
        "Bicubic upsampling",
        "Bicubic upsampling (input)",
    ]
    assert plan.upsampled_label == "Bicubic upsampling (input) (input)"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"title": "a\n"}, r"title: found 'a\\n', .* begin it with \|- or >-"),
        ({"title": " "}, "title: found ' ', expected one line"),
        ({"cases": {"x": {"label": "a\tb"}}}, r"cases.x.label: found 'a\\tb', .* characters$"),
        ({"cases": {"x": {"label": "a\u2028b"}}}, r"cases.x.label: found 'a\\u2028b'"),
        ({"cases": {"x": {"label": ""}}}, "cases.x.label: found ''"),
    ],
)
def test_titles_and_labels_are_one_line(change, told, write_study):
    with pytest.raises(UserError, match=told):
        read_study(write_study(**change))


def test_files_are_read_as_utf8_under_any_locale(tmp_path):
    (tmp_path / "study.yaml").write_text("title: Größe ×4\n", encoding="utf-8")
    code = "from pathlib import Path; from mhiflab.study.yaml_values import read_yaml as read; "
    code += "print(ascii(read(Path('study.yaml'))['title']))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-c", code]
    text = subprocess.check_output(words, cwd=tmp_path, env=os.environ | plain, text=True)
    assert text.strip() == ascii("Größe ×4")


@pytest.fixture
def make_table(write_study) -> Callable[..., Table]:
    """Return a function that makes a table of every case's PSNR by seed, one number an image.

    The other metrics are as many; a seed that is left out is a run that is missing.
    """

    def make(psnr: dict[str, dict[int, list[float]]], labels: dict[str, str] | None = None):
        names = {case: (labels or {}).get(case, case) for case in psnr}
        cases = {case: {"label": name} for case, name in names.items()}
        plan = read_plan(write_study(cases=cases, seeds=[1, 2]))
        entries = tuple(
            finished(entry) if entry.trial.spec.seed in psnr[entry.trial.case] else entry
            for entry in plan.entries
        )
        images = []
        for case, by_seed in psnr.items():
            for seed, values in by_seed.items():
                for scene, value in enumerate(values):
                    about = {"scene": f"s{scene}", "case": case, "seed": seed}
                    for method, own in (("fused", value), ("upsampled", 10.0)):
                        same = dict.fromkeys(METRICS, own)
                        images.append({**about, "method": method, "convention": CONVENTION, **same})
        results = Results(replace(plan, entries=entries), pd.DataFrame(images), CONVENTION)
        table = study_table(results)
        return replace(table, blocks=(replace(table.blocks[0], costs=("flops",)),))

    return make


def test_a_label_like_the_upsampled_row_gets_its_own_marks_alone(make_table):
    values = {"a": {1: [20.0, 21.0], 2: [21.0, 22.0]}, "b": {1: [30.0, 31.0], 2: [31.0, 32.0]}}
    text = formatted(make_table(values, {"b": "Bicubic upsampling"}), ".md")
    (first,) = (line for line in text.splitlines() if line.startswith("| Bicubic upsampling (in"))
    (own,) = (line for line in text.splitlines() if line.startswith("| Bicubic upsampling |"))
    assert "**10.00**" not in first
    assert "| **31.00** ±" in own


def test_means_that_are_not_finite_are_printed_and_not_ranked(make_table):
    values = {
        "a": {1: [20.0, 21.0], 2: [21.0, 22.0]},
        "b": {1: [math.inf, 31.0], 2: [31.0, 32.0]},
        "c": {1: [math.nan, 31.0], 2: [31.0, 32.0]},
    }
    table = make_table(values)
    text = formatted(table, ".md")
    assert "| a | **21.00** ± " in text
    assert "| b | inf | inf | inf | inf |" in text
    assert "| c | - | - | - | - |" in text
    assert "PSNR: without s0, on which b or a has no finite value." in text
    nowhere = make_table({"a": values["a"], "b": {1: [math.inf] * 2, 2: [math.inf] * 2}})
    assert "not compared: b and a: found no scene on which both have a finite" in formatted(
        nowhere, ".md"
    )
    # JSON knows neither.
    json.dumps(sidecar(table), allow_nan=False)


def test_baseline_of_a_case_with_axes_is_its_first_point(make_table):
    values = {"a": {1: [20.0, 21.0], 2: [21.0, 22.0]}, "b": {1: [30.0, 31.0], 2: [31.0, 32.0]}}
    results = make_table(values).blocks[0].results
    points = {"a": "plain/model.omega_0=10", "b": "gabor/model.omega_0=10"}
    entries = [
        replace(e, trial=replace(e.trial, case=points[e.trial.case])) for e in results.plan.entries
    ]
    entries += [
        replace(e, trial=replace(e.trial, case="gabor/model.omega_0=30", label="c"))
        for e in entries
        if e.trial.case == points["b"]
    ]
    images = results.images.assign(case=results.images["case"].map(points))
    more = images[images["case"] == points["b"]].assign(case="gabor/model.omega_0=30")
    plan = replace(results.plan, entries=tuple(entries))
    grown = Results(plan, pd.concat([images, more]), CONVENTION)

    def against(baseline: str | None) -> Results:
        return replace(grown, plan=replace(plan, study=replace(plan.study, baseline=baseline)))

    assert baseline_label(against(None)) == "a"
    assert baseline_label(against("gabor")) == "b"
    assert baseline_label(against("gabor/model.omega_0=30")) == "c"
    assert {one.baseline for one in compare_cases(against("gabor"))[0]} == {"b"}
    with pytest.raises(UserError, match=r"baseline: found 'gab', .*expected a case: plain"):
        baseline_label(against("gab"))


def test_table_says_how_far_each_training_came_from_its_start(make_table):
    values = {"a": {1: [20.0, 21.0], 2: [21.0, 22.0]}, "b": {1: [9.0, 11.0], 2: [9.5, 31.0]}}
    table = make_table(values)
    (block,) = table.blocks
    plan = block.results.plan
    cases = plan.study.cases
    cases = {"a": replace(cases["a"], start="b"), "b": replace(cases["b"], start="upsampled")}
    results = replace(block.results, plan=replace(plan, study=replace(plan.study, cases=cases)))
    # b is 9.25 and 21 over its seeds, a 20.5 and 21.5, what was upsampled 10.
    assert progress(results) == [
        "a ends 5.88 dB above its start, b, in PSNR; it is better in 3 of 4 images x seeds.",
        "b ends 5.12 dB above its start, Bicubic upsampling, in PSNR; it is better in 2 of 4 "
        "images x seeds.",
    ]
    same = make_table({"a": values["b"], "b": values["b"]}).blocks[0].results
    same = replace(same, plan=replace(same.plan, study=replace(same.plan.study, cases=cases)))
    assert progress(same)[0].startswith("a ends at its start, b, in PSNR; it is better in 2 of 4 ")
    lacks = make_table({"a": values["a"], "b": {1: [9.0, 11.0]}}).blocks[0].results
    lacking = replace(lacks.plan, study=replace(lacks.plan.study, cases=cases))
    assert progress(replace(lacks, plan=lacking)) == []


def test_parts_of_tables_say_what_is_there_and_what_is_not_compared(make_table):
    whole = {1: [20.0, 21.0], 2: [21.0, 22.0]}
    lacks = make_table({"a": whole, "b": {2: [30.0, 31.0]}})
    text = "\n".join(notes(lacks))
    assert "† b lacks 1 of its runs (it has seed 2) and is marked neither best nor second." in text
    assert "not compared: no case but the baseline, a, is complete." in text
    assert "seeds 1, 2; test images s0, s1." in text
    assert "GFLOP: matrix products and convolutions, two operations per multiply-add" in text
    grid = table_grid(lacks)
    assert [line[1].mark for line in grid.lines] == ["", "best", ""]
    assert [line[0].text for line in grid.lines][1:] == ["a", "b†"]
    lacks = make_table({"a": {2: [30.0, 31.0]}, "b": {2: [30.0, 31.0]}})
    text = "\n".join(notes(lacks))
    assert "not compared: the baseline, a, lacks runs." in text
    assert "; seed 2; test images" in text
    assert not [line for line in notes(make_table({"a": whole})) if "not compared" in line]


def test_names_are_text_in_every_format_and_no_formula(make_table, tmp_path):
    whole = {1: [20.0, 21.0], 2: [21.0, 22.0]}
    labels = {"a": "=1+1", "b": "[ours] | <script>x</script>", "c": "+ *phase*"}
    table = make_table(dict.fromkeys(labels, whole), labels)
    paths = write_table(table, tmp_path, "table")
    assert [path.name for path in paths][-1] == "table-statistics.csv"
    assert r"| \[ours\] \| \<script>x\</script> | **21.00**" in formatted(table, ".md")
    assert r"{}[ours] \textbar{} \textless{}script" in formatted(table, ".tex")
    assert "<script>" not in formatted(table, ".html")
    assert list(pd.read_csv(paths[2])["method"][1:]) == ["'=1+1", labels["b"], "'+ *phase*"]
    statistics = pd.read_csv(paths[-1])
    assert set(statistics["method"]) == {labels["b"], "'+ *phase*"}
    assert set(statistics["baseline"]) == {"'=1+1"}
    broken = replace(table.blocks[0], title="two\nlines")
    said = formatted(replace(table, blocks=(broken,)), ".tex").split("\\begin{table}")[0]
    assert all(line.startswith("% ") for line in said.splitlines())


def test_consoles_show_numbers_whole_beside_long_names(make_table, capsys, monkeypatch):
    whole = {1: [20.0, 21.0], 2: [21.0, 22.0]}
    table = make_table({"a": whole, "b": whole}, {"a": LONG, "b": "[ours]"})
    check_printed(table_grid(table))
    for width in WIDTHS:
        monkeypatch.setattr(out, "width", width)
        print_table(table)
        told = " ".join(capsys.readouterr().out.split())
        assert "Mean over test images and seeds ± standard deviation" in told
        assert "• " in told
        assert "[ours]" in told


def test_statistics_of_a_former_table_do_not_stay(make_table, tmp_path):
    whole = {1: [20.0, 21.0], 2: [21.0, 22.0]}
    write_table(make_table({"a": whole, "b": whole}), tmp_path, "table")
    assert (tmp_path / "table-statistics.csv").is_file()
    paths = write_table(make_table({"a": whole, "b": {1: [1.0, 2.0]}}), tmp_path, "table")
    assert sorted(tmp_path.glob("table*")) == sorted(paths)


def test_a_table_that_cannot_be_written_leaves_the_former_one(make_table, tmp_path):
    table = make_table({"a": {1: [20.0, 21.0], 2: [21.0, 22.0]}})
    before = {path: path.read_bytes() for path in write_table(table, tmp_path, "table")}
    with pytest.raises(UnicodeEncodeError):
        write_table(replace(table, title="half of a pair: \ud800"), tmp_path, "table")
    assert {path: path.read_bytes() for path in before} == before


def test_markup_in_titles_and_labels_is_text(write_study):
    cases = {"a": {"label": "Ours [/x] [bold]", "set": {}}}
    plan = read_plan(write_study(title="Title [/y]", cases=cases))
    with (console := Console(width=80)).capture() as capture:
        console.print(state_grid(plan))
    assert "Title [/y]" in capture.get()
    assert "Ours [/x] [bold]" in capture.get()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.test": ["superballs_ms"]}, "cannot mix test scenes"),
        # Told apart by what they do, not by name.
        (
            {"protocol.msi_snr_db": 30.0, "protocol.name": "cave_x4"},
            r"cannot mix protocols, found cave_x4 \(\w{8}\) and cave_x4 \(",
        ),
    ],
)
def test_mixed_tables_are_refused(change, message, write_study):
    cases = {"a": {"label": "a", "set": {}}, "b": {"label": "b", "set": change}}
    base = {**TINY["base"], "protocol": "cave_x4"}
    plan = read_plan(write_study(cases=cases, base=base))
    with pytest.raises(UserError, match=message):
        collect(replace(plan, entries=tuple(map(finished, plan.entries))))


def test_relative_sqlite_uri_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///own.db")
    assert tracking_uri(Lab(tmp_path)) == f"sqlite:///{tmp_path}/own.db"
