"""Tables of a paper from recorded runs: their numbers, sources, gaps, and how they are verified."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient
from tiny import PUBLISHED, TINY, job_of

from feinfn.errors import UserError
from mhiflab.cli.study import run as run_command
from mhiflab.execute.run import StoppedError
from mhiflab.execute.worker import run_worker
from mhiflab.paths import Lab, experiments_dir, study_path
from mhiflab.plan.plan import read_plan
from mhiflab.record import tag
from mhiflab.record.store import open_store, tracking_uri
from mhiflab.record.studies import study_run
from mhiflab.render.figures.registry import find_kind
from mhiflab.render.paper import Plans, checked_paper, render_parts
from mhiflab.render.tables.published import COLUMNS
from mhiflab.render.verify import differences
from mhiflab.study.expand import expand
from mhiflab.study.read import read_paper, read_study
from mhiflab.study.yaml_values import build

BASE = {**TINY["base"], "resources": {"workers": 0}}
METHODS = {
    "gsa": {"label": "GSA & friends_1", "set": {"model.name": "gsa"}},
    "without": {"label": "Without", "set": {"model.fourier_branch": False}},
    "full": {"label": "FeINFN"},
}
PAPER = {
    "title": "Ours",
    "published": "published.csv",
    "tables": {
        "t1": {
            "title": "Two ratios",
            "studies": {"CAVE x4": "four", "CAVE x8": "eight"},
            "costs": ["parameters", "flops", "seconds", "memory"],
            "published": {"CAVE x4": {"data": "cave", "ratio": 4}},
        },
        "t2": {"title": "One ratio", "studies": {"CAVE x4": "four"}},
    },
}
TABLE = {"title": "One ratio", "studies": {"CAVE x4": "four"}}
FIGURE = {"title": "Where", "study": "four", "kind": "errors"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A folder with a paper, of whose two studies one has run."""
    folder = tmp_path_factory.mktemp("paper")
    studies = {"four": "cave_x4", "eight": "cave_x8"}
    for name, protocol in studies.items():
        study = {**TINY, "title": name, "base": {**BASE, "protocol": protocol}, "cases": METHODS}
        text = yaml.safe_dump({**study, "seeds": [1, 2], "baseline": "without"}, sort_keys=False)
        (folder / f"{name}.yaml").write_text(text)
    (folder / "paper.yaml").write_text(yaml.safe_dump(PAPER, sort_keys=False))
    rows = pd.DataFrame([{c: PUBLISHED.get(c, "") for c in COLUMNS}])
    rows.to_csv(folder / "published.csv", index=False)
    return folder


@pytest.fixture
def call(mhiflab, without_ray, shelf) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs a command on the paper in the shelf's lab."""

    def run(command: str, *words: object) -> subprocess.CompletedProcess:
        return mhiflab(command, shelf / "paper.yaml", "--lab", shelf / "lab", *words)

    return run


@pytest.fixture
def filled(shelf, call) -> Path:
    """The shelf once the second table's runs are there."""
    if not (shelf / "lab").exists():
        ran = call("run", "--fill", "t2")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "0 of 5 trials to execute" not in ran.stdout
    return shelf


@pytest.fixture
def complete(filled, call) -> Path:
    """The shelf once all runs are there."""
    if not (filled / "lab" / "rendered" / "paper" / "t1.md").exists():
        ran = call("run")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        # What the first call executed is not executed again.
        assert "0 of 5 trials to execute" in ran.stdout
    return filled


def keys(lab: Path) -> set[str]:
    client = MlflowClient(tracking_uri=f"sqlite:///{lab / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("mhiflab").experiment_id])
    return {run.data.tags[tag.KEY] for run in found if run.data.tags[tag.KIND] == "trial"}


def test_filling_a_table_runs_exactly_what_it_lacks(filled, call):
    assert len(keys(filled / "lab")) == 5
    refused = call("table", "--name", "t1")
    assert refused.returncode == 1
    assert "5 of 5 runs are missing (GSA & friends_1, seed 1" in refused.stderr
    assert not (filled / "lab" / "rendered" / "paper" / "t1.md").exists()
    unknown = call("run", "--fill", "t3")
    assert unknown.returncode == 1
    assert "found 't3', expected one of t1, t2" in unknown.stderr
    figure = call("table", "--name", "f1")
    assert figure.returncode == 1
    assert "found 'f1', expected one of t1, t2\n" in figure.stderr


def test_every_command_takes_a_paper(recorded, mhiflab, tmp_path):
    """A paper of a study that has run and one that has not, in the lab of the first."""
    text = recorded[0].read_text()
    (tmp_path / "tiny.yaml").write_text(text)
    other = text.replace("title: tiny", "title: The other").replace("lr: 0.001", "lr: 0.002")
    (tmp_path / "other.yaml").write_text(other)
    table = {"title": "T", "studies": {"a": "tiny"}}
    tables = {"t": table, "u": {**table, "studies": {"a": "tiny", "b": "other"}}}
    paper = {"title": "Both", "tables": tables}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(paper))
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({**paper, "tables": {"t": table}}))
    lab = ("--lab", recorded[0].parent / "lab")
    shown = mhiflab("status", "both.yaml", *lab)
    assert shown.stdout.index("tiny: tiny") < shown.stdout.index("other: The other")
    drawn = mhiflab(
        "table", "both.yaml", *lab, "--name", "t", "--convention", "uint8", "--out", "x"
    )
    assert drawn.returncode == 0, drawn.stderr
    words = ("--kind", "curves", "--format", "png", "--out", "x")
    assert mhiflab("figure", "one.yaml", *lab, *words).returncode == 0
    found = {path.name for path in (tmp_path / "x").iterdir()}
    assert {"t-uint8.md", "curves.png", "curves.csv"} < found
    assert "t.md" not in found
    written = mhiflab("report", "both.yaml", *lab, "--no-log", "--out", "both.html")
    assert written.returncode == 0, written.stderr
    page = (tmp_path / "both.html").read_text()
    assert page.count("<main>") == page.count('id="window-data"') == 1
    assert page.count("<h1>") == 2
    assert page.index("<title>Both</title>") < page.index('id="state-2"')
    assert "<h1>The other</h1>" in page
    vain = mhiflab("stop", "both.yaml", *lab)
    assert "no driver is at work here" in vain.stderr


def test_stopping_a_paper_begins_no_other_study(shelf, tmp_path, monkeypatch):
    begun = []

    def execute(path: Path, *rest: object) -> None:
        begun.append(path.stem)
        raise StoppedError("stopped")

    monkeypatch.setattr("mhiflab.execute.run.execute_study", execute)
    with pytest.raises(StoppedError):
        run_command(str(shelf / "paper.yaml"), lab=tmp_path)
    assert begun == ["four"]


def test_numbers_are_those_of_the_runs_and_the_sidecar_names_them(complete):
    lab = complete / "lab"
    side = json.loads((lab / "rendered" / "paper" / "t1.json").read_text())
    assert [block["title"] for block in side["blocks"]] == ["CAVE x4", "CAVE x8"]
    named = {
        key for block in side["blocks"] for row in block["rows"] for key in row["runs"].values()
    }
    assert named == keys(lab)
    client = MlflowClient(tracking_uri=f"sqlite:///{lab / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("mhiflab").experiment_id])
    ids = {run.data.tags[tag.KEY]: run.info.run_id for run in found if tag.KEY in run.data.tags}
    for block in side["blocks"]:
        for row in block["rows"][1:]:
            by_seed, by_scene = {}, {}
            for seed, key in row["runs"].items():
                path = client.download_artifacts(ids[key], "metrics_test.csv")
                frame = pd.read_csv(path)
                rows = frame[(frame["convention"] == "matlab") & (frame["method"] == "fused")]
                assert sorted(rows["scene"]) == block["images"]
                by_seed[seed] = fmean(rows["psnr"])
                for scene, value in zip(rows["scene"], rows["psnr"], strict=True):
                    by_scene.setdefault(scene, []).append(value)
            told = row["values"]["psnr"]
            assert told["by_seed"] == pytest.approx(by_seed, rel=1e-12)
            assert told["mean"] == pytest.approx(fmean(by_seed.values()), rel=1e-12)
            over_images = stdev(fmean(values) for values in by_scene.values())
            assert told["std_over_images"] == pytest.approx(over_images, rel=1e-9)
            if row["case"] == "gsa":
                assert told["std_over_seeds"] is None
                assert list(row["runs"]) == [""]
                assert "parameters" not in row["costs"]
            else:
                spread = stdev(by_seed.values())
                assert told["std_over_seeds"] == pytest.approx(spread, rel=1e-9)
                assert row["costs"]["parameters"] > 0
            assert row["costs"]["seconds"] > 0
    table = pd.read_csv(lab / "rendered" / "paper" / "t1.csv")
    assert list(table["block"].unique()) == ["CAVE x4", "CAVE x8"]
    assert math.isnan(table.loc[1, "psnr_std"])


def test_every_format_marks_best_and_second_and_quotes_apart(complete):
    folder = complete / "lab" / "rendered" / "paper"
    text = (folder / "t1.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| GSA")]
    assert len(rows) == 2
    assert "**" in rows[0]
    below = text.splitlines().index("| *CAVE x4, published* |  |  |  |  |  |  |  |  |")
    assert text.splitlines()[below + 1] == (
        r"| Old \| one \[Somebody\] | 50.10 (3.5) | 2.00 | - | - | 1.234‡ | - | - | - |"
    )
    assert r"\[Somebody\] protocol: another PSF; metrics: unknown." in text
    assert "‡ counted by us on the released code for 31 + 3 bands at ratio 4, not quoted." in text
    assert "GFLOP: matrix products and convolutions" in text
    assert "GFLOP: " not in (folder / "t2.md").read_text()
    assert "Published values are quoted" in text
    assert "- FeINFN" in text or "No difference in PSNR between FeINFN and Without" in text
    assert "Warning: 2 images cannot show a difference" in text
    tex = (folder / "t1.tex").read_text()
    assert r"GSA \& friends\_1 & \textbf{" in tex
    assert r"Old \textbar{} one [Somebody] & 50.10 (3.5)" in tex
    assert r"& 1.234$^\ddagger$ &" in tex
    assert r"\underline{" in tex
    assert r"\multicolumn{9}{l}{\emph{CAVE x8}} \\" in tex
    page = (folder / "t1.html").read_text()
    assert "GSA &amp; friends_1" in page
    assert "<b>" in page
    statistics = pd.read_csv(folder / "t1-statistics.csv")
    # Two cases against a baseline, four metrics, two blocks.
    assert len(statistics) == 16
    assert set(statistics["baseline"]) == {"Without"}


def test_same_records_give_the_same_bytes_here_and_from_an_archive(complete, call, tmp_path):
    folder = complete / "lab" / "rendered" / "paper"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert call("table").returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    exported = call("export", "--out", tmp_path / "record")
    assert exported.returncode == 0, exported.stderr
    assert "10 runs" in exported.stdout
    for path in (tmp_path / "record").rglob("*.json"):
        assert str(complete) not in path.read_text()
    # Another machine: neither the lab nor anything but the paper's files is there.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in complete.glob("*.[yc]*"):
        shutil.copy(path, elsewhere)
    shutil.copytree(folder, elsewhere / "rendered" / "paper")
    again = call(
        "verify", "--rendered", elsewhere / "rendered" / "paper", "--record", tmp_path / "record"
    )
    assert again.returncode == 0, again.stderr
    assert "12 files in" in again.stdout


def test_one_changed_digit_is_named_by_its_cell(complete, call, tmp_path):
    folder = tmp_path / "rendered"
    shutil.copytree(complete / "lab" / "rendered" / "paper", folder)
    assert call("verify", "--rendered", folder).returncode == 0
    text = (folder / "t2.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| FeINFN"))
    digit = re.search(r"\d\.\d(\d)", line)
    assert digit
    place = digit.start(1)
    changed = line[:place] + str((int(line[place]) + 1) % 10) + line[place + 1 :]
    (folder / "t2.md").write_text(text.replace(line, changed))
    (folder / "t9.csv").write_text("x\n")
    (folder / "report.html").write_text("x\n")
    (folder / "t1.csv").unlink()
    refused = call("verify", "--rendered", folder)
    assert refused.returncode == 1
    assert "4 differences" in refused.stderr
    assert "report.html: a report is not verified; keep it elsewhere" in refused.stderr
    assert re.search(r"t2.md, line \d+ \(FeINFN, PSNR \(dB\) ↑\): found", refused.stderr)
    assert "t1.csv: is not there" in refused.stderr
    assert "t9.csv: nothing in the paper makes it" in refused.stderr


def test_parts_of_tables_are_marked(complete, call, tmp_path, mhiflab):
    study = yaml.safe_load((complete / "four.yaml").read_text())
    study["seeds"] = [1, 2, 3]
    study["cases"]["more"] = {"label": "More", "set": {"model.decoder_width": 6}}
    (tmp_path / "four.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    words = ["table", tmp_path / "four.yaml", "--lab", complete / "lab"]
    assert "5 of 10 runs are missing" in mhiflab(*words).stderr
    drawn = mhiflab(*words, "--partial")
    assert drawn.returncode == 0, drawn.stderr
    text = (complete / "lab" / "rendered" / "four" / "table.md").read_text()
    assert "| FeINFN† |" in text
    assert "| More† | - | - | - | - |" in text
    assert "| GSA & friends_1 |" in text
    assert (
        "† FeINFN lacks 1 of its runs (it has seeds 1, 2) and is marked neither best nor second."
        in text
    )
    assert "† More lacks 3 of its runs and is marked neither best nor second." in text
    assert "; seeds 1, 2; test images" in text
    assert "not compared: the baseline, Without, lacks runs." in text
    assert not list((complete / "lab" / "rendered" / "four").glob("*statistics.csv"))


def test_a_smoke_variant_says_so_and_stands_beside_no_published_values(shelf, tmp_path):
    for name in ("four.yaml", "published.csv"):
        shutil.copy(shelf / name, tmp_path)
    figure = {
        "title": "x",
        "study": "four",
        "kind": "cost",
        "options": {"published": "published.csv"},
    }
    paper = {**PAPER, "tables": {"t1": {**PAPER["tables"]["t1"], "studies": {"CAVE x4": "four"}}}}
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump({**paper, "figures": {"f1": figure}}))
    lab = Lab(tmp_path / "lab")
    uri = tracking_uri(lab)
    store = open_store(lab, uri)
    parent = study_run(store, "four-smoke", "")
    for entry in read_plan(tmp_path / "four.yaml", smoke=True).entries:
        job = job_of(entry, lab, uri, parent, case=entry.trial.case, label=entry.trial.label)
        run_worker(job, torch.device("cpu"), lambda _: None)
    plans, folder = Plans(checked_paper(path), True, store, lab), tmp_path / "rendered"
    _, failed = render_parts(plans, folder, ["t1", "f1"], quiet=True)
    assert failed == {}
    for name in ("t1.md", "t1.tex", "t1.html"):
        text = (folder / name).read_text()
        assert "Smoke form: everything is small" in text
        assert "Somebody" not in text
    for name in ("t1.csv", "f1.csv"):
        assert set(pd.read_csv(folder / name)["form"]) == {"smoke"}
    assert pd.read_csv(folder / "f1.csv")["measured"].all()
    assert json.loads((folder / "t1.json").read_text())["blocks"][0]["quoted"] == []


@pytest.mark.parametrize("kind", ["csv", "md", "tex", "html", "json"])
def test_differences_name_the_cell_in_every_format(kind, complete, tmp_path):
    folder = complete / "lab" / "rendered" / "paper"
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / f"t2.{kind}", tmp_path / name)
    assert differences(tmp_path / "old", tmp_path / "new") == []
    path = tmp_path / "old" / f"t2.{kind}"
    value = json.loads((folder / "t2.json").read_text())
    row = next(row for row in value["blocks"][0]["rows"] if row["case"] == "full")
    ssim = row["values"]["ssim"]["mean"]
    text = repr(ssim) if kind in ("csv", "json") else f"{ssim:.4f}"
    content = path.read_text()
    assert text in content
    path.write_text(content.replace(text, text[:-1] + str((int(text[-1]) + 1) % 10)))
    found = differences(tmp_path / "old", tmp_path / "new")
    assert found
    column = {"csv": "ssim_mean", "json": "ssim, mean"}.get(kind, "SSIM")
    assert all("FeINFN" in line and column in line for line in found), found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tables": {"t/1": PAPER["tables"]["t2"]}}, "expected letters, digits"),
        ({"tables": {"t1": {"title": "x", "studies": {"a": "none"}}}}, "found study 'none'"),
        ({"tables": {"t1": {**PAPER["tables"]["t2"], "cost": []}}}, "did you mean 'costs'"),
        ({"published": None}, "tables.t1.published: found no file of values"),
        (
            {"figures": {"t1": FIGURE}},
            "whose file t1.csv would be that of tables.t1",
        ),
        (
            {"figures": {"T1": FIGURE}},
            "whose file T1.csv would be that of tables.t1",
        ),
        (
            {"figures": {"t1-statistics": FIGURE}},
            "t1-statistics.csv would be that of tables.t1",
        ),
        ({"tables": {"t-statistics": TABLE, "t": TABLE}}, "that of tables.t too"),
        ({"tables": {"README": TABLE}}, "whose file README.md would be that of a folder's own"),
        ({"figures": {"f": {**FIGURE, "kind": "erors"}}}, "figures.f: figure kind: found 'erors'"),
        ({"figures": {"f": {**FIGURE, "options": {"mop": 1}}}}, "figures.f: options: unknown key"),
        (
            {
                "tables": {
                    "t1": {
                        **PAPER["tables"]["t1"],
                        "published": {"x4": {"data": "cave", "ratio": 4}},
                    }
                }
            },
            "expected headings",
        ),
        ({"title": "Ours\n"}, "title: found 'Ours\\n', expected one line of text"),
        (
            {"tables": {"t1": {**PAPER["tables"]["t2"], "title": "a\nb"}}},
            "tables.t1.title: found 'a\\nb'",
        ),
        (
            {"tables": {"t1": {**PAPER["tables"]["t2"], "studies": {"a\tb": "four"}}}},
            "tables.t1.studies: heading: found 'a\\tb'",
        ),
        (
            {"figures": {"f1": {"title": " ", "study": "four", "kind": "cost"}}},
            "figures.f1.title: found ' '",
        ),
    ],
)
def test_wrong_papers_are_told(change, told, shelf, tmp_path):
    for path in shelf.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump({**PAPER, **change}))
    with pytest.raises(UserError, match=re.escape(told)):
        checked_paper(tmp_path / "paper.yaml")


FILES = [read_paper(path) for path in (experiments_dir() / "paper").glob("*.yaml")]
PAPERS = sorted(one.path.stem for one in FILES if not one.study)


@pytest.mark.parametrize("name", PAPERS)
def test_shipped_papers_can_be_tried_anywhere(name):
    paper = checked_paper(study_path(name))
    for file in paper.files():
        plan = read_plan(file, smoke=True)
        assert all(entry.state == "new" for entry in plan.entries), file
        text = file.read_text()
        assert all(f"# {word}:" in text for word in ("Claim", "Command", "Cost", "Expected"))
    for figure in paper.figures.values():
        options = build(find_kind(figure.kind), figure.options, name)
        study = read_study(paper.file(figure.study), smoke=True)
        cases = {trial.case for trial in expand(study, "")}
        named = {*getattr(options, "cases", ()), getattr(options, "case", None)} - {None}
        assert named <= cases


def test_every_study_beside_the_papers_is_part_of_one():
    used = {file for one in FILES if not one.study for file in one.files()}
    beside = {file for file in used if file.parent == experiments_dir() / "paper"}
    assert beside == {one.path for one in FILES if one.study}
    assert all(file.is_file() for file in used)


@pytest.mark.parametrize("name", PAPERS)
def test_committed_tables_follow_from_committed_runs(name, mhiflab, tmp_path):
    folder = experiments_dir() / "paper"
    if not (folder / "rendered" / name).is_dir():
        pytest.skip(f"nothing is rendered of {name}: it was not run at full size")
    checked = mhiflab("verify", name, "--record", folder / "record" / name)
    assert checked.returncode == 0, checked.stderr
    assert "follow from the recorded runs" in checked.stdout
    # Red after one digit.
    copy = tmp_path / "rendered"
    shutil.copytree(folder / "rendered" / name, copy)
    path = next(p for p in sorted(copy.glob("*.md")))
    line = next(x for x in path.read_text().splitlines() if "±" in x and x.startswith("|"))
    place = line.index("±") + 2
    changed = line[:place] + str((int(line[place]) + 1) % 10) + line[place + 1 :]
    path.write_text(path.read_text().replace(line, changed))
    words = ["--record", folder / "record" / name, "--rendered", copy]
    refused = mhiflab("verify", name, *words)
    assert refused.returncode == 1
    assert f"{path.name}, line" in refused.stderr
