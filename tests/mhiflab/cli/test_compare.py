"""`mhiflab compare`: real runs side by side, on the console and as one HTML file."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, RunData, RunTag
from printed import LONG, check_printed
from tiny import changed

from feinfn.errors import UserError
from feinfn.metrics.label import LABELS
from mhiflab.cli.compare import compare as compare_command
from mhiflab.console import out
from mhiflab.grid import Grid
from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan, reconcile
from mhiflab.record.artifacts import FUSED
from mhiflab.record.finished import chosen_runs, code_parts
from mhiflab.record.store import open_store, recorded_store, tracking_uri, trial_runs
from mhiflab.record.writer import trial_record
from mhiflab.render.choose import runs_of_study
from mhiflab.render.compare import AT_MOST, compare_runs
from mhiflab.render.compare_page import print_sections
from mhiflab.render.pages import page


@pytest.fixture
def lab(recorded) -> Lab:
    return Lab(recorded[0].parent / "lab")


@pytest.fixture
def keys(recorded) -> dict[tuple[str, int], str]:
    return {(e.trial.case, e.trial.spec.seed): e.key for e in recorded[1]}


@pytest.fixture
def compared(lab, keys):
    """Return a comparison of two cases whose second record is changed first."""
    store = open_store(lab, tracking_uri(lab))
    runs = chosen_runs(store, [keys["without", 1], keys["full", 1]])

    def compare(change=lambda run: run, convention=None):
        sections = compare_runs([runs[0], change(runs[1])], convention)
        return {section.title: section for section in sections}

    return compare


class Checker(HTMLParser):
    """Checks that tags nest and that nothing is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.text: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.loaded += [value for name, value in attributes if name in ("src", "href", "style")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)


def texts(grid: Grid) -> list[list[str]]:
    return [[cell.text for cell in line] for line in grid.lines]


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    assert html.startswith("<!doctype html>")
    assert "script" not in checker.seen
    assert "link" not in checker.seen
    assert all(value.startswith("data:image/png;base64,") for value in checker.loaded)
    assert "url(" not in html
    return checker


def test_two_cases_from_the_command_line(mhiflab, lab, keys, tmp_path):
    one, other = keys["without", 1], keys["full", 1]
    words = ["compare", one[:8], other, "--lab", lab.root]
    done = mhiflab(*words, "--out", "a.html")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "The baseline is without seed 1" in done.stdout
    setting = re.search(r"model\.fourier_branch +(\w+) +(\w+)", done.stdout)
    assert setting is not None
    assert setting.groups() == ("false", "true")
    assert "model.feat_dim" not in done.stdout
    assert "train.lr " not in done.stdout
    assert "seeds of the same case" not in done.stdout
    assert "2 images cannot show a difference" in done.stdout

    checker = checked((tmp_path / "a.html").read_text())
    assert checker.seen["h2"] == 6
    assert checker.seen["img"] == 1
    text = "\n".join(checker.text)
    for part in (one, other, "model.fourier_branch", "2 images cannot show a difference"):
        assert part in text

    again = mhiflab(*words)
    assert again.returncode == 0, again.stderr
    usual = lab.root / "rendered" / f"compare-{one[:8]}-{other[:8]}.html"
    assert usual.read_bytes() == (tmp_path / "a.html").read_bytes()
    assert not list(usual.parent.glob(".*"))


def test_differences_are_those_of_the_recorded_images(compared, lab, keys):
    section = compared()["Metrics"]
    store = open_store(lab, tracking_uri(lab))
    tables = []
    for run in chosen_runs(store, [keys["without", 1], keys["full", 1]]):
        rows = run.images
        rows = rows[(rows["convention"] == "matlab") & (rows["method"] == FUSED)]
        tables.append(rows.set_index("scene"))
    differences, images = section.grids
    assert len(images.rows) == 2 * len(tables[0])
    for metric, place in zip(("psnr", "sam", "ergas", "ssim"), range(2, 6), strict=True):
        digits = LABELS[metric].digits
        change = tables[1][metric] - tables[0][metric]
        line = next(x for x in texts(differences) if x[1].startswith(LABELS[metric].name))
        assert float(line[2]) == pytest.approx(change.mean(), abs=0.51 * 10**-digits)
        low, high = map(float, line[3].split(" to "))
        assert low <= float(line[2]) <= high
        for row in images.lines[1::2]:
            value, difference = float(row[place].text), float(row[place].below.strip("()"))
            scene = row[0].text
            assert value == pytest.approx(tables[1].loc[scene, metric], abs=0.51 * 10**-digits)
            assert difference == pytest.approx(change[scene], abs=0.51 * 10**-digits)


def test_differences_that_many_images_show_are_said_with_their_direction(lab, keys):
    store = open_store(lab, tracking_uri(lab))
    runs = chosen_runs(store, [keys["without", 1], keys["full", 1]])

    def many_images(run):
        rows = run.images[run.images["scene"] == "pompoms_ms"]
        rows = pd.concat(
            [rows.assign(scene=f"image {i:02d}") for i in range(16)], ignore_index=True
        )
        fused, step = rows["method"] == FUSED, rows["scene"].str[-2:].astype(int) / 100
        better = run is runs[1]
        rows.loc[fused, "psnr"] = 40 + better * (1 + step)
        rows.loc[fused, "sam"] = 3 + better * (1 + step)
        rows.loc[fused, ["ergas", "ssim"]] = 0.9
        return changed(run, images=rows)

    sections = compare_runs([many_images(run) for run in runs])
    section = next(s for s in sections if s.title == "Metrics")
    shown = {row[1].split()[0]: row[-1] for row in texts(section.grids[0])}
    assert shown == {"PSNR": "better", "SAM": "worse", "ERGAS": "no", "SSIM": "no"}
    gain, loss = section.sentences[1:]
    assert re.match(r"full seed 1 \(\w{8}\) gains 1\.07 dB PSNR over without seed 1 \(", gain)
    assert " raises SAM by 1.075 degrees against without seed 1" in loss


def test_seeds_of_one_case_are_called_so(lab, keys, tmp_path, capsys):
    both = [keys["full", 1], keys["full", 2]]
    compare_command(both, file=tmp_path / "x.html", lab=lab.root)
    said = "are seeds of the same case: what differs between their results is chance in training."
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "x.html").read_text()


def test_nothing_is_claimed_between_seeds_and_one_training_is_cautioned(lab, keys):
    store = open_store(lab, tracking_uri(lab))

    def metrics(*chosen):
        def many_images(run):
            rows = run.images[run.images["scene"] == "pompoms_ms"]
            rows = pd.concat(
                [rows.assign(scene=f"image {i:02d}") for i in range(16)], ignore_index=True
            )
            rows.loc[rows["method"] == FUSED, "psnr"] = 40.0 + (run.key == chosen[1])
            return changed(run, images=rows)

        runs = [many_images(run) for run in chosen_runs(store, list(chosen))]
        return next(s for s in compare_runs(runs) if s.title == "Metrics")

    cases = metrics(keys["without", 1], keys["full", 1])
    assert any("One seed" in text for text in cases.cautions)
    assert any("gains 1.00 dB PSNR" in text for text in cases.sentences)
    seeds = metrics(keys["full", 1], keys["full", 2])
    assert seeds.sentences[1:] == ["No difference was shown."]
    assert {row[-1] for row in texts(seeds.grids[0])} == {"chance in training"}


def test_study_and_filter_find_its_runs(recorded, lab, keys, tmp_path, capsys):
    out = tmp_path / "x.html"
    compare_command(study=str(recorded[0]), file=out, lab=lab.root)
    by_study = capsys.readouterr().out
    assert "The baseline is without seed 1" in by_study
    assert "without seed 2" in by_study.split("are seeds of the same case")[0]
    compare_command(filter_="tags.`mhiflab.study` = 'tiny'", file=out, lab=lab.root)
    assert capsys.readouterr().out == by_study
    compare_command(study=str(recorded[0]), case=["full"], file=out, lab=lab.root)
    shown = capsys.readouterr().out
    assert keys["full", 2][:8] in shown
    assert keys["without", 1][:8] not in shown
    grown = tmp_path / "grown.yaml"
    grown.write_text(recorded[0].read_text().replace("- 1\n- 2", "- 1\n- 3"))
    compare_command(study=str(grown), file=out, lab=lab.root)
    shown = capsys.readouterr().out
    assert "Left out, because they are not finished: without, seed 3; full, seed 3" in shown


def test_the_baseline_is_the_studys_else_the_first_that_is_named(recorded, keys, write_study):
    def first(cases, **changes):
        path = write_study(seeds=[1, 2], **changes)
        plan = reconcile(read_plan(path), recorded_store(lab), lab)
        return [run.key for run in runs_of_study(plan, cases, [1])]

    lab = Lab(recorded[0].parent / "lab")
    both = [keys["full", 1], keys["without", 1]]
    assert first(["full", "without"]) == both
    assert first(["without", "full"]) == both[::-1]
    assert first([]) == both[::-1]
    assert first(["without", "full"], baseline="full") == both
    assert first([], baseline="full") == both
    assert first(["without"], baseline="full") == both[1:]


def test_the_first_key_is_the_baseline(lab, keys, tmp_path, capsys):
    for one, other in (("full", "without"), ("without", "full")):
        compare_command([keys[one, 1], keys[other, 1]], file=tmp_path / "x.html", lab=lab.root)
        assert f"The baseline is {one} seed 1" in capsys.readouterr().out


def test_too_many_runs_are_told_what_leaves_fewer(recorded, lab, keys, tmp_path, capsys):
    plan = reconcile(read_plan(recorded[0]), recorded_store(lab), lab)

    def seeded(entry, seed):
        return replace(entry, trial=replace(entry.trial, spec=replace(entry.trial.spec, seed=seed)))

    many = tuple(seeded(e, s) for e in plan.entries[::2] for s in (1, 2, 3, 4))
    with pytest.raises(UserError) as told:
        runs_of_study(replace(plan, entries=many), [], [])
    assert (
        "found 8 finished runs of tiny, expected 2 to 7, which can be told apart: --seed 1 leaves "
        "2, --seed 2 leaves 2, --seed 3 leaves 2, --seed 4 leaves 2, --case 'without' leaves 4, "
        "--case 'full' leaves 4; or compare cases over all seeds: mhiflab table "
    ) in str(told.value)
    compare_command(study=str(recorded[0]), seed=[2], file=tmp_path / "x.html", lab=lab.root)
    shown = capsys.readouterr().out
    for (_, seed), key in keys.items():
        assert (key[:8] in shown) == (seed == 2)


def test_a_filter_that_finds_nothing_is_named_with_its_unknown_metrics(lab):
    with pytest.raises(UserError) as told:
        compare_command(filter_="metrics.test_psn > 46", lab=lab.root)
    assert str(told.value).startswith("--filter 'metrics.test_psn > 46': found 0 finished runs")
    assert "no run has a metric 'test_psn', did you mean 'test_psnr'?" in str(told.value)
    with pytest.raises(UserError, match=r"'metrics\.`test_psnr` > 1e9': found 0 .*ask for less"):
        compare_command(filter_="metrics.`test_psnr` > 1e9", lab=lab.root)


def test_code_and_data_that_differ_are_shown(compared):
    plain = compared()
    assert plain["Code and machine"].sentences == plain["Data"].sentences == ["Nothing differs."]

    def change(run):
        code = {**run.code, "versions.torch": "0.0", "versions.other": "1"}
        return changed(run, code=code, data={**run.data, "fingerprint": "0" * 64})

    found = compared(change)
    rows = {row[0]: row[1:] for row in texts(found["Code and machine"].grids[0])}
    assert rows["versions.other"] == ["–", "1"]
    assert rows["versions.torch"][1] == "0.0"
    assert len(rows) == 2
    assert [row[0] for row in texts(found["Data"].grids[0])] == ["fingerprint"]
    # Seeds of one case on other data are not the same case.
    same = compared(lambda run: changed(run, spec={**run.spec, "model.fourier_branch": False}))
    assert len(same["Runs"].sentences) == 1


def test_uncommitted_changes_are_told_by_content():
    about = {"git_commit": "abc", "versions": {"torch": "2"}, "wall_seconds": 3}
    plain = {"git_commit": "abc", "versions.torch": "2"}
    assert code_parts(about, "") == plain
    told = {code_parts(about, diff)["uncommitted changes"] for diff in ("+a\n+b\n", "+a\n+c\n")}
    assert len(told) == 2
    assert all(re.fullmatch(r"2 lines, SHA-256 [0-9a-f]{12}", text) for text in told)


def test_other_protocols_and_conventions_are_said_in_words(compared):
    def change(run):
        own = {"mhiflab.protocol_hash": "f" * 64, "mhiflab.convention": "other"}
        data = RunData(tags=[RunTag(*tag) for tag in {**run.tags, **own}.items()])
        return changed(run, mlflow=Run(run.mlflow.info, data, run.mlflow.inputs))

    assert compared()["Runs"].cautions == []
    found = compared(change)
    (caution,) = found["Runs"].cautions
    assert re.match(r"The protocols differ: cave_x4 \(\w{8}\), cave_x4 \(f{8}\)\. ", caution)
    (own,) = (text for text in found["Metrics"].cautions if "conventions" in text)
    assert "differ: matlab, other. Here all are compared in matlab alone." in own
    text = "".join(checked(page("compare.html", "x", sections=found.values())).text)
    assert caution in text
    assert own in text


def test_images_are_paired_only_where_they_are_the_same(compared):
    def lacking(run):
        return changed(run, images=run.images[run.images["scene"] != "pompoms_ms"])

    def other_pixels(run):
        images = run.images.copy()
        images.loc[(images["scene"] == "pompoms_ms") & (images["method"] != FUSED), "psnr"] += 0.1
        return changed(run, images=images)

    def no_upsampled(run):
        return changed(run, images=run.images[run.images["method"] == FUSED])

    assert len(compared(no_upsampled)["Metrics"].grids[1].rows) == 4
    for change, why in (
        (lacking, "because some runs lack them"),
        (other_pixels, "because their pixels differ"),
    ):
        section = compared(change)["Metrics"]
        assert section.cautions[0] == f"Not paired, {why}: pompoms_ms."
        assert {row[0] for row in texts(section.grids[1])} == {"superballs_ms"}
        # One image has no interval.
        assert {row[3] for row in texts(section.grids[0])} == {"–"}


def test_runs_without_anything_in_common(compared):
    def renamed(run):
        return changed(run, images=run.images.assign(scene="another_" + run.images["scene"]))

    section = compared(renamed)["Metrics"]
    assert section.cautions[-1] == "The runs share no test image."
    assert not section.grids

    def alone(run):
        return changed(run, images=run.images.assign(convention="own"), history=lambda _: {})

    found = compared(alone)
    assert "no metric convention in common" in found["Metrics"].cautions[0]
    assert found["Learning curves"].sentences[-1].startswith("No validation PSNR on record: full")
    with pytest.raises(UserError, match=r"--convention: found 'matlab', .* there is none"):
        compared(alone, "matlab")


def test_another_convention_on_request(compared):
    assert compared(convention="uint8")["Metrics"].sentences[0].startswith("Convention uint8.")
    with pytest.raises(UserError, match="--convention: found 'matlap', did you mean 'matlab'"):
        compared(convention="matlap")


def test_consoles_show_numbers_whole_beside_long_names(compared):
    sections = compared(lambda run: changed(run, name=LONG, spec={**run.spec, LONG: LONG}))
    grids = [grid for section in sections.values() for grid in section.grids]
    assert len(grids) == 4
    for grid in grids:
        check_printed(grid)


def test_markup_in_names_is_text(compared, capsys, monkeypatch):
    def named(run):
        return changed(run, name="<b>&[/x] [bold]", spec={**run.spec, "<i>": "</table>"})

    html = page("compare.html", "<title>", sections=compared(named).values())
    text = "".join(checked(html).text)
    assert "<b>&[/x] [bold]" in text
    assert "</table>" in text
    monkeypatch.setattr(out, "width", 300)
    print_sections(list(compared(named).values()))
    assert "<b>&[/x] [bold]" in capsys.readouterr().out


def test_wrong_words_are_named(recorded, lab, keys, tmp_path):
    known = list(keys.values())
    wrong: dict[str, dict] = {
        "expected run keys, or --study, or --filter, one of them": {},
        "or --filter, one of them;": {"runs": known, "study": "demo"},
        r"--case: found full without --study": {"runs": known, "case": ["full"]},
        r"--out: found 'x.pdf', expected a name ending in \.html": {
            "runs": known,
            "file": Path("x.pdf"),
        },
        r"found 1 finished run \(\w{8}\), expected 2 to 7": {"runs": known[:1]},
        "twice, expected each once": {"runs": known[:1] * 2},
        "run 000000: found no such run among the 4 on record": {"runs": [known[0], "000000"]},
        "--case: found 'ful', did you mean 'full'.? expected cases of .*: without, full": {
            "study": str(recorded[0]),
            "case": ["ful"],
        },
        "found 0 finished runs, expected": {"filter_": "tags.`mhiflab.case` = 'no'"},
        "--seed: found '3', expected seeds of .*: 1, 2": {"study": str(recorded[0]), "seed": [3]},
        "--seed: found 2 without --study": {"runs": known, "seed": [2]},
        "--filter: found 'nonsense', which MLflow refuses": {"filter_": "nonsense"},
        "no record yet": {"runs": known, "lab": tmp_path / "elsewhere"},
    }
    for message, words in wrong.items():
        with pytest.raises(UserError, match=message):
            compare_command(**{"lab": lab.root, **words})
    with pytest.raises(UserError, match=f"found {AT_MOST + 1} finished runs"):
        compare_runs(chosen_runs(recorded_store(lab), known[:1]) * (AT_MOST + 1))
    assert not (tmp_path / "elsewhere").exists()


def test_untested_run_is_refused(lab, keys):
    key = "e" * 64
    with trial_record(lab, tracking_uri(lab), key, "untested", "parent", {}) as record:
        record.finish()
    try:
        with pytest.raises(UserError, match="found no metrics of test images with it"):
            compare_command([keys["full", 1], key], lab=lab.root)
    finally:
        store = open_store(lab, tracking_uri(lab))
        MlflowClient(store.uri).delete_run(trial_runs(store, key)[key].info.run_id)
