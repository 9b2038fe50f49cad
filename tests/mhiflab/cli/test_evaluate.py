"""`mhiflab evaluate` on files of every kind, and what it writes."""

import csv
import math

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from feinfn.data.images import read_cube
from feinfn.data.readers.array import Options
from feinfn.errors import UserError
from feinfn.inference.scores import score_files
from feinfn.metrics.conventions import CONVENTIONS
from mhiflab.cli.evaluate import evaluate
from mhiflab.render.fused import convention_grid, write_mat

RNG = np.random.default_rng(5)
REFERENCE = RNG.uniform(0.2, 0.8, (6, 40, 44))
FUSED = REFERENCE + RNG.normal(0, 0.01, REFERENCE.shape)


def save_mat73(path, cube):
    """As MATLAB stores [H, W, S] in version 7.3: HDF5 with all axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["sr"] = cube.transpose(0, 2, 1)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")


def save_h5(path, cube):
    with h5py.File(path, "w") as file:
        file["GT"], file["wavelength_nm"] = cube, 400 + np.arange(len(cube))


SAVE = {
    "v5.mat": lambda path, x: savemat(path, {"ref": np.moveaxis(x, 0, -1), "ratio": 4}),
    "v73.mat": save_mat73,
    "cube.npy": np.save,
    "cube.npz": lambda path, x: np.savez(path, cube=x, about="text"),
    "cube.h5": save_h5,
}


@pytest.mark.parametrize("name", SAVE)
def test_every_format_gives_bands_rows_columns(name, tmp_path):
    SAVE[name](tmp_path / name, REFERENCE)
    np.testing.assert_array_equal(read_cube(tmp_path / name).values_SHW, REFERENCE)


def test_integers_become_fractions(tmp_path):
    for kind, top in ((np.uint8, 255), (np.uint16, 65535)):
        whole = np.round(REFERENCE * top).astype(kind)
        np.save(tmp_path / "whole.npy", whole)
        cube = read_cube(tmp_path / "whole.npy", Options(full_scale=top))
        np.testing.assert_array_equal(cube.values_SHW, whole / top)


def score(fused, reference, full_scale=None, reference_full_scale=None):
    told = Options(full_scale=full_scale)
    other = Options(full_scale=reference_full_scale, prefix="reference-")
    return score_files((fused, told), (reference, other), 4, ["matlab"]).values["matlab"]["psnr"]


@pytest.mark.parametrize("top", [65535, 10000, 4095, 2047, 1023])
def test_one_pair_has_one_score_in_every_full_scale_and_none_is_guessed(top, tmp_path):
    fused, whole, floats = (tmp_path / f"{name}.npy" for name in ("fused", "whole", "floats"))
    dtype = np.int16 if top < 32768 else np.uint16
    np.save(whole, np.round(REFERENCE / 0.8 * top).astype(dtype))
    np.save(fused, np.round(FUSED.clip(0.2, 0.8) / 0.8 * top).astype(dtype))
    np.save(floats, REFERENCE / 0.8)
    with pytest.raises(UserError, match=rf"fused.npy.* up to {top}, .*: {top}\?\).*--full-scale"):
        score(fused, whole)
    exact = -10 * np.log10((((FUSED.clip(0.2, 0.8) - REFERENCE) / 0.8) ** 2).mean((1, 2))).mean()
    assert score(fused, whole, top) == pytest.approx(exact, abs=0.02)
    with pytest.raises(UserError, match="with --reference-full-scale"):
        score(floats, whole)
    assert score(floats, whole, None, top) > 60
    with pytest.raises(UserError, match=r"floats up to .*; leave --full-scale out"):
        score(floats, whole, top, top)


@pytest.mark.parametrize(
    ("arrays", "key", "message"),
    [
        ({"sr": REFERENCE, "gt": REFERENCE}, None, "name one with --key"),
        (
            {"sr": REFERENCE},
            "gt",
            r"found arrays sr \(6, 40, 44\) float64, expected gt; name",
        ),
        ({"sr": REFERENCE * 4095}, None, "expected \\[0, 1\\]; divide by"),
        (
            {"sr": np.full((2, 3, 4), 7)},
            None,
            "type int64 up to 7, whose full scale",
        ),
        ({"sr": np.full((2, 3, 4), math.nan)}, None, "sr: found 24 NaN or inf values"),
        ({"sr": np.full((2, 3), 0.5)}, "sr", "expected three axes"),
    ],
)
def test_unusable_arrays_are_named(arrays, key, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        read_cube(tmp_path / "a.npz", Options(key=key))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.npy", "no such file"),
        ("bad.npy", "cannot be read"),
        ("bad.npz", "cannot be read"),
        ("bad.mat", "cannot be read"),
        ("bad.h5", "cannot be read"),
        ("bad.tif", "cannot be read"),
    ],
)
def test_unreadable_files_are_named(name, message, tmp_path):
    if name.startswith("bad"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 no image")
    with pytest.raises(UserError, match=f"{name}: .*{message}"):
        read_cube(tmp_path / name)


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "fused.npy", FUSED)
    savemat(tmp_path / "reference.mat", {"ref": np.moveaxis(REFERENCE, 0, -1)})
    return tmp_path / "fused.npy", tmp_path / "reference.mat"


def test_all_conventions_side_by_side_and_all_outputs(images, mhiflab, tmp_path):
    outputs = [f"--{kind}={tmp_path / 'out' / f'x.{kind}'}" for kind in ("csv", "mat")]
    outputs.append(f"--map={tmp_path / 'out' / 'x.png'}")
    words = ["--fused", images[0], "--reference", images[1], "--ratio", 8, *outputs]
    done = mhiflab("evaluate", *words)
    assert done.returncode == 0, done.stderr
    for name in CONVENTIONS:
        assert f"{name}: " in done.stdout
    (ergas,) = (line.split() for line in done.stdout.splitlines() if "ERGAS  " in line)
    values = [word for word in ergas[1:] if word[0] not in "+-"]
    assert len(values) == len(CONVENTIONS)
    assert len(set(values)) > 2

    with (tmp_path / "out/x.csv").open() as file:
        rows = {(r["convention"], r["index"]): float(r["value"]) for r in csv.DictReader(file)}
    mse = ((FUSED - REFERENCE) ** 2).mean(axis=(1, 2))
    assert rows["matlab", "psnr"] == pytest.approx(np.mean(-10 * np.log10(mse)), rel=1e-12)
    assert rows["ergas_100_4", "ergas"] == pytest.approx(2 * rows["matlab", "ergas"], rel=1e-12)
    assert {convention for convention, _ in rows} == set(CONVENTIONS)

    found = loadmat(tmp_path / "out/x.mat")
    assert found["sr"].dtype == found["gt"].dtype == np.float64
    np.testing.assert_array_equal(found["sr"], np.moveaxis(FUSED, 0, -1))
    np.testing.assert_array_equal(found["gt"], np.moveaxis(REFERENCE, 0, -1))
    assert found["ratio"].item() == 8
    png = (tmp_path / "out/x.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x.csv", "x.mat", "x.png"]

    # What was written for MATLAB is itself an input, with one key for each image.
    again = tmp_path / "out/x.mat"
    keys = ["--key", "sr", "--reference-key", "gt", "--convention", "uint8"]
    done = mhiflab("evaluate", "--fused", again, "--reference", again, "--ratio", 8, *keys)
    assert f"{rows['uint8', 'psnr']:.3f}" in done.stdout, done.stderr
    assert "matlab" not in done.stdout.split("uint8: ")[0]


def test_mistakes_get_one_line(images, mhiflab, tmp_path):
    words = ["evaluate", "--fused", images[0], "--reference", images[1]]
    done = mhiflab(*words, "--convention", "matlap")
    assert done.returncode == 1
    assert "found 'matlap', did you mean 'matlab'" in done.stderr
    np.save(images[0], np.moveaxis(FUSED, 0, -1))
    out = tmp_path / "out"
    done = mhiflab(*words, "--csv", out / "x.csv")
    assert "found shape (40, 44, 6) [bands, rows, columns], expected (6, 40, 44)" in done.stderr
    assert not out.exists()


def test_images_smaller_than_a_window(tmp_path, capsys):
    np.save(tmp_path / "a.npy", FUSED[:, :20, :20])
    np.save(tmp_path / "b.npy", REFERENCE[:, :20, :20])
    evaluate(tmp_path / "a.npy", tmp_path / "b.npy", convention=["matlab"])
    shown = capsys.readouterr().out
    assert "Left out, their windows are larger than the image: UIQI, Q2n" in shown
    assert "SSIM" in shown


def test_only_differing_cells_show_a_difference():
    grid = convention_grid({"matlab": {"psnr": 40.0}, "a": {"psnr": 40.0001}, "b": {"psnr": 41.5}})
    (cells,) = grid.lines
    assert [cell.text for cell in cells] == ["PSNR (dB)", "40.000", "40.000", "41.500"]
    assert [(cell.mark, cell.below) for cell in cells] == [("", "")] * 3 + [("other", "+1.500")]
    ((_, _, endless),) = convention_grid({"matlab": {"psnr": math.inf}, "a": {"psnr": 80.0}}).lines
    assert (endless.mark, endless.below) == ("other", "")


def test_images_beyond_the_format_of_mat_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mhiflab.render.fused.MAT_BYTES", 1000)
    with pytest.raises(UserError, match="the limit of version 5"):
        write_mat(tmp_path / "x.mat", FUSED, REFERENCE, 4)
    assert not (tmp_path / "x.mat").exists()
