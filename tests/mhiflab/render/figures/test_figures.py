"""Figures of recorded runs: what they show, what they refuse, and equal bytes every time."""

import math
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from tiny import TINY, changed, finished

from feinfn.analysis.change import effect_of, reach, scale_conjugates
from feinfn.analysis.latent import latent_spectra
from feinfn.analysis.response import frequency_response
from feinfn.config import DataConfig
from feinfn.data import source
from feinfn.errors import UserError
from feinfn.methods.configs import ClassicalConfig, SSRNetConfig
from feinfn.methods.network import count_parameters
from feinfn.protocols.named import PROTOCOLS
from mhiflab.paths import Lab
from mhiflab.plan.plan import Entry, Plan, read_plan, reconcile
from mhiflab.record.artifacts import QUICKLOOK_FILE, WITHOUT_REFERENCE, artifact_file
from mhiflab.record.finished import RecordedRun
from mhiflab.record.store import open_store, tracking_uri
from mhiflab.render.figures import registry
from mhiflab.render.figures.network.change import scale_centred
from mhiflab.render.figures.registry import KINDS, draw
from mhiflab.render.runs import comparable_runs
from mhiflab.render.tables.published import COLUMNS

WINDOW = ("spectra", "latent", "response", "change")


@pytest.fixture(scope="module")
def once(recorded) -> Plan:
    """The study's runs, opened once, with the full network's also as a case of ReLU."""
    plan = opened(recorded[0])
    relu = [
        with_model(entry, case="relu", label="ReLU", activation="relu")
        for entry in plan.entries
        if entry.trial.case == "full"
    ]
    return only(plan, *plan.entries, *relu)


def opened(study: Path) -> Plan:
    lab = Lab(study.parent / "lab")
    return reconcile(read_plan(study), open_store(lab, tracking_uri(lab)), lab)


def only(plan: Plan, *entries: Entry, **changes: Any) -> Plan:
    """Return the plan with these entries alone."""
    return replace(plan, entries=entries, **changes)


def with_model(entry: Entry, case: str, label: str, model: Any = None, **fields: Any) -> Entry:
    """Return an entry as another case, whose spec names another model."""
    model = model or replace(entry.trial.spec.model, **fields)
    spec = replace(entry.trial.spec, model=model)
    return replace(entry, trial=replace(entry.trial, case=case, label=label, spec=spec))


def numbers(kind: str, options: dict, plan: Plan, folder: Path) -> pd.DataFrame:
    return pd.read_csv(draw(kind, options, plan, folder, kind, ())[-1])


def test_every_kind_is_drawn_from_records_alone_with_the_same_bytes(
    recorded, mhiflab_process, tmp_path, monkeypatch
):
    """In this process and in another one with more threads, another seed of hashes and settings."""
    study, here, there = recorded[0], tmp_path / "here", tmp_path / "there"
    plan = opened(study)
    with monkeypatch.context() as patch:
        patch.setattr(source, "load_scene", lambda *_: pytest.fail("a scene was read"))
        patch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        with mpl.rc_context({"font.size": 20, "image.cmap": "jet", "savefig.dpi": 50}):
            drawn = [p for kind in KINDS for p in draw(kind, {}, plan, here, kind)]
    assert {p.name for p in drawn} == {f"{k}.{x}" for k in KINDS for x in ("png", "pdf", "csv")}
    environment = {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    words = ("figure", study, "--kind", "all", "--lab", study.parent / "lab", "--out", there)
    told = mhiflab_process(*words, **environment)
    assert told.returncode == 0, told.stderr
    for path in drawn:
        assert (there / path.name).read_bytes() == path.read_bytes(), path.name


def test_numbers_of_images_are_those_of_the_records(once, tmp_path):
    fused = numbers("fused", {"seed": 2}, once, tmp_path).set_index("label")
    assert list(fused.index) == ["Bicubic upsampling", "without", "full", "ReLU"]
    (entry,) = comparable_runs(once, ["full"], [2])
    table = entry.run.images.query("method == 'fused' and convention == 'matlab'")
    first = table.iloc[0]
    row = fused.loc["full"]
    assert (row["scene"], row["seed"], row["convention"]) == (first["scene"], 2, "matlab")
    assert row["psnr"] == pytest.approx(first["psnr"], rel=1e-5)
    error = entry.run.arrays[f"{first['scene']}/fused/error"].astype(float)
    assert row["mean_absolute_error"] == pytest.approx(error.mean(), rel=1e-5)
    other = table["scene"].iloc[1]
    errors = numbers("errors", {"cases": ["full"], "scene": other, "map": "sam"}, once, tmp_path)
    assert (errors["scene"].item(), errors["seed"].item()) == (other, 1)
    angles = comparable_runs(once, ["full"], [1])[0].run.arrays[f"{other}/fused/sam"].astype(float)
    assert errors["mean"].item() == pytest.approx(np.nanmean(angles), rel=1e-5)


def test_zoom_shows_where_upsampling_errs_most(once, tmp_path):
    found = numbers("fused", {}, once, tmp_path).iloc[0]
    entry = once.finished[0]
    error = entry.run.arrays[f"{found['scene']}/upsampled/error"].astype(float)
    size = found["zoom_size"]
    assert size == min(error.shape) // 4
    squares = np.lib.stride_tricks.sliding_window_view(error, (size, size)).sum(axis=(2, 3))
    assert (found["zoom_row"], found["zoom_column"]) == np.unravel_index(
        squares.argmax(), squares.shape
    )


def test_spectra_are_told_at_their_place_in_the_whole_image(once, tmp_path):
    found = numbers("spectra", {}, once, tmp_path)
    assert found["pixel"].nunique() == 3
    cube = source.load_scene(DataConfig(), found["scene"].iloc[0]).cube()
    values = cube[found["band"] - 1, found["row"], found["column"]]
    np.testing.assert_allclose(found["reference"], values, atol=1e-5)
    place = found[["row", "column"]].iloc[0].tolist()
    given = numbers("spectra", {"pixels": [place], "cases": ["relu"]}, once, tmp_path)
    np.testing.assert_array_equal(given["reference"].iloc[:31], found["reference"].iloc[:31])
    assert set(given["label"]) == {"Bicubic upsampling", "ReLU"}


def test_curves_count_steps_and_cost_takes_means_over_seeds(once, tmp_path):
    curves = numbers("curves", {"cases": ["relu"]}, once, tmp_path)
    for entry in comparable_runs(once, ["relu"]):
        own = curves[curves["seed"] == entry.trial.spec.seed].set_index("epoch")["value"]
        history = entry.run.history("val_psnr")
        assert own.to_dict() == pytest.approx(history, rel=1e-5)
    # Five training scenes of 128 pixels, four patches each, two in a batch.
    scenes = [s for s in once.entries[0].survey.scenes if s.part == "train"]
    assert (curves["step"] == curves["epoch"] * (4 * len(scenes) // 2)).all()
    cost = numbers("cost", {}, once, tmp_path).set_index("method")
    tables = [e.run.images.query("convention == 'matlab'") for e in comparable_runs(once, ["full"])]
    psnr = [t[t["method"] == "fused"]["psnr"].mean() for t in tables]
    assert cost.loc["full", "psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)
    assert cost.loc["full", "psnr_std"] == pytest.approx(np.std(psnr, ddof=1), rel=1e-4)
    model = comparable_runs(once, ["full"])[0].run.network
    assert cost.loc["full", "parameters"] == count_parameters(model)
    assert "gflop_at_64_px" in cost
    assert set(cost["seeds"]) == {2}


def test_what_is_not_trained_has_no_seeds(once, tmp_path):
    gsa = ClassicalConfig(name="gsa")
    *entries, relu, _ = once.entries
    mixed = only(once, *entries, with_model(relu, "relu", "ReLU", gsa))
    cost = numbers("cost", {}, mixed, tmp_path).set_index("method")
    assert cost["seeds"].to_dict() == {"without": 2, "full": 2, "ReLU": 0}


def test_published_values_of_other_data_or_unknown_size_are_left_out(once, tmp_path):
    path = tmp_path / "published.csv"
    told = {"psnr": "50.5", "parameters_counted": "2", "source": "x", "data": "cave", "ratio": "4"}
    rows = [
        {"method": "A"},
        {"method": "B", "ratio": "8"},
        {"method": "C", "parameters_counted": ""},
    ]
    rows.append({"method": "D", "data": "harvard"})
    every = [dict.fromkeys(COLUMNS, "") | told | row for row in rows]
    pd.DataFrame(every).to_csv(path, index=False)
    found = numbers("cost", {"published": str(path)}, once, tmp_path)
    (quoted,) = found[~found["measured"]].to_dict("records")
    assert (quoted["method"], quoted["parameters"], quoted["psnr"]) == ("A", 2e6, 50.5)
    pd.DataFrame(every[2:3]).to_csv(path, index=False)
    with pytest.raises(UserError, match="found no row of cave x4 with parameters and PSNR"):
        numbers("cost", {"published": str(path)}, once, tmp_path)


def test_gabor_is_measured_at_the_trained_values_and_at_the_start(once, tmp_path):
    found = numbers("gabor", {"case": "full"}, once, tmp_path).set_index(["place", "kind"])
    weights = comparable_runs(once, ["full"], [1])[0].run.network.state_dict()
    real = found.loc["layer 1", "real"]
    assert real["omega"] == pytest.approx(weights["decoder.filters.0.omega_0"].item(), rel=1e-5)
    assert found.loc["start", "real"]["omega"] == 30
    for place in ("start", "layer 1"):
        assert found.loc[place, "complex"]["product_over_bound"] == pytest.approx(1, rel=1e-4)
        assert found.loc[place, "real"]["product_over_bound"] > 1
    np.testing.assert_allclose(found["product"], found["product_by_formula"], rtol=1e-3)


def test_numbers_of_the_network_are_those_of_the_trained_weights(once, tmp_path):
    found = numbers("change", {"factor": 3}, once, tmp_path).set_index("place")
    # The first case has no Fourier branch.
    assert set(found["case"]) == {"full"}
    entry = comparable_runs(once, ["full"], [1])[0]
    model, inputs = entry.run.network, entry.run.window().inputs
    map_HW = effect_of(model, inputs, "amplitude", lambda x: scale_conjugates(x, 2, 3, 3))
    told = found.loc["amplitude"]
    assert told["reach"] == pytest.approx(reach(map_HW), rel=1e-4)
    share = (map_HW > 0.01 * map_HW.max()).mean()
    assert told["share_above_1_percent"] == pytest.approx(share, abs=1e-3)
    latent = numbers("latent", {"bands": 5, "case": "full"}, once, tmp_path)
    assert latent["band"].tolist() == ["1", "2", "3", "4", "5", "mean"]
    alike = latent_spectra(model, inputs, offset_px=2, bands=5).similarity
    np.testing.assert_allclose(latent["phase_cosine"][:5], alike.phase_cosine, atol=1e-5)
    assert latent["phase_cosine"][5] == pytest.approx(alike.phase_cosine.mean(), abs=1e-5)
    response = numbers("response", {"cases": ["full"]}, once, tmp_path)
    shares = response[response["feature"] == "filter_1"]["share"]
    np.testing.assert_allclose(shares, frequency_response(model, inputs)["filter_1"], rtol=1e-4)


def test_codes_are_compared_where_an_even_psf_puts_their_pixels(once, tmp_path, monkeypatch):
    entry = comparable_runs(once, ["full"], [1])[0]
    spec = replace(entry.trial.spec, protocol=PROTOCOLS["dhif_x4"])
    even = replace(entry, trial=replace(entry.trial, spec=spec))
    seen = []
    monkeypatch.setattr(
        "mhiflab.render.figures.network.latent.latent_spectra",
        lambda *given: seen.append(given[2]) or latent_spectra(*given),
    )
    draw("latent", {}, only(once, even), tmp_path, "x")
    assert seen == [1.5]


def test_a_frequency_is_changed_wherever_frequency_zero_lies():
    amplitude = torch.arange(30.0).reshape(1, 1, 5, 6)
    expected = torch.fft.fftshift(scale_conjugates(amplitude, 1, 2, 3), (-2, -1))
    centred = torch.fft.fftshift(amplitude, (-2, -1))
    torch.testing.assert_close(scale_centred(centred, 1, 2, 3), expected)


def test_a_default_frequency_fits_a_small_window(once, tmp_path, monkeypatch):
    window = RecordedRun.window

    def small(self, scene=None):
        found = window(self, scene)
        return replace(
            found,
            msi_MHW=found.msi_MHW[:, :12, :12],
            lms_SHW=found.lms_SHW[:, :12, :12],
            lr_hsi_Shw=found.lr_hsi_Shw[:, :3, :3],
            reference_SHW=None,
        )

    monkeypatch.setattr(RecordedRun, "window", small)
    found = numbers("change", {}, once, tmp_path).set_index("change")
    place = found.loc["LR code, one frequency", ["row", "column"]].tolist()
    assert place == [1, 1]


def test_what_stood_there_before_is_replaced_as_a_whole(once, tmp_path, monkeypatch):
    folder = tmp_path / "new" / "folder"
    assert len(draw("curves", {}, once, folder, "x")) == 3
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rendered = registry.figure_bytes
    monkeypatch.setattr(
        registry,
        "figure_bytes",
        lambda figure, kind: rendered(figure, {"pdf": "odd"}.get(kind, kind)),
    )
    with pytest.raises(UserError, match="found format 'odd'"):
        draw("curves", {"metric": "sam"}, once, folder, "x")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # What is not drawn anew is of another figure.
    draw("curves", {"metric": "sam"}, once, folder, "x", ("png",))
    assert {path.name for path in folder.iterdir()} == {"x.png", "x.csv"}
    assert (folder / "x.png").read_bytes() != before["x.png"]


def test_places_that_cannot_be_written_are_told_before_anything_is_drawn(
    once, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "make_drawing", lambda *_: pytest.fail("a figure was drawn"))
    (tmp_path / "taken").touch()
    (tmp_path / "x.csv").mkdir()
    for folder, message in (
        (tmp_path / "taken", "taken: found a file, expected a folder"),
        (tmp_path / "taken" / "below", "taken: found a file, expected a folder"),
        (tmp_path, "x.csv: found a folder, expected a file"),
    ):
        with pytest.raises(UserError, match=message):
            draw("curves", {}, once, folder, "x")


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_file_of_pictures_is_named(damage, once, tmp_path, monkeypatch):
    @contextmanager
    def damaged(store, run_id, name, folder_uri):
        with artifact_file(store, run_id, name) as path:
            if name == QUICKLOOK_FILE and damage == "missing":
                np.savez(path, other=np.zeros(3))
            elif name == QUICKLOOK_FILE and damage == "cut":
                path.write_bytes(path.read_bytes()[:5000])
            elif name == QUICKLOOK_FILE:
                content = bytearray(path.read_bytes())
                with zipfile.ZipFile(path) as members:
                    for one in members.infolist():
                        middle = 30 + len(one.filename) + one.compress_size // 2
                        content[one.header_offset + middle] ^= 255
                path.write_bytes(content)
            yield path

    monkeypatch.setattr("mhiflab.record.artifacts.artifact_file", damaged)
    runs = [finished(e, RecordedRun(e.run.store, e.run.mlflow)) for e in once.finished]
    told = rf"^without seed 1 \(\w+\): found a damaged {QUICKLOOK_FILE} .* delete the run and run"
    with pytest.raises(UserError, match=told):
        draw("fused", {}, only(once, *runs), tmp_path, "x")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("change", {"factor": 1}, "options: factor: found 1.0, expected a number other than 1"),
        ("change", {"factor": math.inf}, "options: factor: found inf, expected a finite number"),
        ("spectrum", {}, "found 'spectrum', did you mean 'spectra'"),
        ("fused", {"zom": [0, 0, 8]}, "unknown key 'zom'; did you mean 'zoom'"),
        ("fused", {"zoom": [120, 0, 20]}, r"option zoom: found \[120, 0, 20\]"),
        ("fused", {"cases": ["ful"]}, "found 'ful', did you mean 'full'"),
        ("errors", {"seed": 7}, "option seed: found '7', expected seeds of .*: 1, 2"),
        ("errors", {"scene": "x"}, "found 'x', expected a test image"),
        ("spectra", {"pixels": [[0, 0]]}, "expected a place kept with all bands: rows 16 to 111"),
        (
            "gabor",
            {"case": "relu"},
            "found 'relu', .*a FeINFN with Gabor filters: without, full",
        ),
        ("gabor", {"layer": 2}, "option layer: found 2, expected from 1 to 1"),
        ("gabor", {"layer": 0}, "options: layer: found 0, expected an integer >= 1"),
        (
            "change",
            {"case": "without"},
            "found 'without', .*a FeINFN with a Fourier branch: full",
        ),
        ("response", {"features": ["filter_9"]}, "expected features of case without: input"),
        ("cost", {"published": "none.csv"}, "none.csv: no such file of published values"),
    ],
)
def test_what_cannot_be_drawn_is_refused(kind, options, message, once, tmp_path):
    with pytest.raises(UserError, match=message):
        draw(kind, options, once, tmp_path, kind)
    assert not list(tmp_path.iterdir())


def test_runs_that_are_missing_or_of_other_protocols_are_refused(once, tmp_path):
    first, *others = once.entries
    waiting = only(once, Entry(first.trial, first.survey, first.key, "new"), *others)
    with pytest.raises(UserError, match="1 of 3 runs are missing"):
        draw("fused", {}, waiting, tmp_path, "x")
    # What needs other runs alone is drawn.
    assert draw("fused", {"seed": 2}, waiting, tmp_path, "x", ())
    spec = first.trial.spec
    protocol = replace(spec.protocol, name="noisy", hsi_snr_db=30.0)
    noisy = replace(first, trial=replace(first.trial, spec=replace(spec, protocol=protocol)))
    for kind in ("errors", "cost"):
        with pytest.raises(
            UserError, match=r"cannot mix protocols, found noisy \(\w{8}\) and cave"
        ):
            draw(kind, {}, only(once, noisy, *others), tmp_path, "x")


def test_other_models_have_no_decoder_to_look_into(once, tmp_path):
    others = [with_model(e, "relu", "ReLU", SSRNetConfig()) for e in once.entries[-2:]]
    mixed = only(once, *once.entries[:-2], *others)
    assert set(numbers("response", {}, mixed, tmp_path)["case"]) == {"without", "full"}
    with pytest.raises(UserError, match="case relu: found SSRNetConfig, expected a FeINFN"):
        draw("response", {"cases": ["relu"]}, mixed, tmp_path, "x")
    for kind in ("latent", "gabor", "change", "response"):
        with pytest.raises(UserError, match="found no case that is a FeINFN"):
            draw(kind, {}, only(once, *others), tmp_path, "x")


@pytest.mark.parametrize("kind", WINDOW)
def test_runs_older_than_windows_say_so(kind, once, tmp_path):
    def without(arrays):
        return {key: arrays[key] for key in arrays if "/window/" not in key}

    (full,) = comparable_runs(once, ["full"], [1])
    old = only(once, finished(full, changed(full.run, arrays=without(full.run.arrays))))
    with pytest.raises(UserError, match="delete the run and run its study again"):
        draw(kind, {}, old, tmp_path, "x")


def test_a_real_pair_without_reference(once, tmp_path):
    """It has pictures and indices that need no reference, and what compares with one is refused."""

    def without(arrays):
        kept = [k for k in arrays if not k.endswith(("/error", "/sam")) and "reference" not in k]
        return {key: arrays[key] for key in kept}

    def indices(table):
        values = {"convention": WITHOUT_REFERENCE, "d_lambda": 0.1, "d_s": 0.2, "qnr": 0.72}
        return table.drop_duplicates(["scene", "method"]).assign(**values)

    (full,) = comparable_runs(once, ["full"], [1])
    parts = {"arrays": without(full.run.arrays), "images": indices(full.run.images)}
    real = only(once, finished(full, changed(full.run, **parts)))
    found = numbers("fused", {}, real, tmp_path)
    assert found["d_s"].tolist() == [0.2, 0.2]
    assert found["mean_absolute_error"].isna().all()
    for kind in ("fused", "response", "change", "curves", "gabor"):
        assert draw(kind, {}, real, tmp_path, "x", ("png",))
    for kind in ("spectra", "latent", "errors", "cost"):
        with pytest.raises(UserError, match="reference"):
            draw(kind, {}, real, tmp_path, "x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "smoke"), [(1, False), (7, True)])
def test_one_case_and_seven_fit_a_page_and_smoke_is_told(kind, count, smoke, once):
    (entry,), label = (
        comparable_runs(once, ["full"], [1]),
        "FeINFN with Gabor filters in its decoder, number {}",
    )
    entries = [with_model(entry, f"c{i}", label.format(i)) for i in range(count)]
    figure, told_numbers = registry.make_drawing(kind, {}, only(once, *entries, smoke=smoke))
    assert figure.get_figwidth() <= 6.91
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    box = figure.get_tightbbox(renderer)
    assert min(box.x0, box.y0) >= -0.02
    assert box.x1 <= figure.get_figwidth() + 0.02
    assert box.y1 <= figure.get_figheight() + 0.02
    titles = [a.title for a in figure.axes if a.get_visible() and a.title.get_text()]
    notes = [a.xaxis.label for a in figure.axes if a.xaxis.label.get_text()]
    boxes = [t.get_window_extent(renderer) for t in (*titles, *notes)]
    apart = all(not a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert apart, [t.get_text() for t in (*titles, *notes)]
    texts = [t for t in figure.findobj(Text) if t.get_text()]
    assert len(texts) > 5
    assert min(t.get_fontsize() for t in texts) >= 6
    told, mark = (
        figure.get_supxlabel() or "",
        "smoke form: everything small, on the embedded sample",
    )
    assert ("form" in told_numbers, told.endswith(mark)) == (smoke, smoke)
    if smoke:
        assert set(told_numbers["form"]) == {"smoke"}
        assert told.startswith("radial frequency") == (kind == "response")
        footer = figure._supxlabel.get_window_extent(renderer)
        assert figure.bbox.x0 <= footer.x0 < footer.x1 <= figure.bbox.x1
        assert all(not footer.overlaps(axis.get_tightbbox(renderer)) for axis in figure.axes)


def test_cases_of_one_label_are_told_apart(once):
    first, second = (comparable_runs(once, [case], [1])[0] for case in ("full", "relu"))
    twin = replace(second, trial=replace(second.trial, label="full"))
    labels = only(once, first, twin).labels
    assert labels == {"full": "full (full)", "relu": "full (relu)"}
    inputs = replace(first, trial=replace(first.trial, label="Bicubic upsampling"))
    assert only(once, inputs).upsampled_label == "Bicubic upsampling (input)"


def test_all_kinds_that_a_study_allows(recorded, mhiflab, tmp_path):
    study = {**TINY, "cases": {"without": TINY["cases"]["without"]}, "seeds": [1]}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    words = ("figure", "plain.yaml", "--lab", recorded[0].parent / "lab", "--format", "png")
    told = mhiflab(*words, "--out", "here", "--kind", "all")
    assert told.returncode == 0, told.stderr
    assert "change   not drawn: plain.yaml: found no case that is a FeINFN" in told.stdout
    names = {f"{kind}.{suffix}" for kind in KINDS if kind != "change" for suffix in ("png", "csv")}
    assert {path.name for path in (tmp_path / "here").iterdir()} == names
    for more, message in (
        (("--kind", "change"), "found no case that is a FeINFN with a Fourier branch"),
        # A scene's name is a text, whatever it looks like.
        (("--kind", "errors", "--option", "scene=001"), "option scene: found '001', expected a"),
        (("--kind", "fused", "--option", "seed"), "--option: found 'seed', expected key=value"),
        (("--kind", "all", "--option", "seed=1"), "--kind all --option seed, expected --name"),
    ):
        told = mhiflab(*words, "--out", "here", *more)
        assert told.returncode == 1
        assert message in told.stderr
