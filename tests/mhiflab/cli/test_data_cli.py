"""The `data` commands as a user types them, on scenes in every layout."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from places import SHARED_DATA
from scipy.io import savemat

from feinfn.errors import UserError
from mhiflab.cli.main import app

NM = np.arange(400.0, 701.0, 10.0)
SHARED = SHARED_DATA
CROPS, PNGS = SHARED / "cave_crop256", SHARED / "cave_png"
here = pytest.mark.skipif(not SHARED.is_dir(), reason="the CAVE scenes are not on this machine")


def cube(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (31, height, width)).astype(np.uint16)


def write_pngs(folder: Path, counts: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for i, band in enumerate(counts, start=1):
        Image.fromarray(band).save(folder / f"{folder.name}_{i:02d}.png")


def write_h5(path: Path, counts: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["GT"], file["wavelength_nm"] = counts, NM
        file["GT"].attrs["full_scale"] = 65535


@pytest.fixture
def layouts(tmp_path: Path) -> dict[str, Path]:
    """Two scenes of equal pixels in four layouts."""
    for kind in ("png", "mat", "npy"):
        (tmp_path / kind).mkdir()
    for seed, name in enumerate(("a_ms", "b_ms")):
        counts = cube(seed)
        write_pngs(tmp_path / "png" / name / name, counts)
        write_h5(tmp_path / "h5" / f"{name}.h5", counts)
        savemat(tmp_path / "mat" / f"{name}.mat", {"cube": counts.transpose(1, 2, 0)})
        np.save(tmp_path / "npy" / f"{name}.npy", counts / np.float32(65535))
    return {kind: tmp_path / kind for kind in ("png", "h5", "mat", "npy")}


Run = Callable[..., subprocess.CompletedProcess]


def ok(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def failed(done: subprocess.CompletedProcess, message: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_equal_pixels_have_one_fingerprint_in_every_layout(mhiflab: Run, layouts, tmp_path):
    store = tmp_path / "cave.h5"
    told = ok(mhiflab("data", "prepare", "cave", "--source", layouts["png"], "--out", store))
    wanted = told.split("Fingerprint")[1].strip()
    plain = ok(mhiflab("data", "fingerprint", layouts["png"], layouts["h5"], store))
    nm = ("--wavelengths", "400:700:10")
    other = ok(mhiflab("data", "fingerprint", layouts["npy"], *nm))
    failed(
        mhiflab("data", "fingerprint", layouts["mat"], *nm),
        "a_ms.mat: cube: found numbers of type uint16 up to 65535, whose full scale is not known "
        "(16 bits: 65535?), expected to be told which stored number means 1; say it with --full-sc",
    )
    scale = ("--full-scale", "65535")
    other += ok(mhiflab("data", "fingerprint", layouts["mat"], *nm, *scale))
    found = [line.split("  ") for line in (plain + other).splitlines()]
    assert [f for f, what in found if not what.endswith("_ms")] == [wanted] * 5
    hashes = {name: {f for f, what in found if what == name} for name in ("a_ms", "b_ms")}
    assert [len(h) for h in hashes.values()] == [1, 1]
    # Another way of making the store, from floats: the same numbers in the end.
    again = tmp_path / "again.h5"
    words = ("--source", layouts["npy"], "--out", again, *nm)
    assert wanted in ok(mhiflab("data", "prepare", "files", *words))
    with h5py.File(again) as file:
        assert file["scenes/a_ms/hsi"].dtype == np.uint16


def test_inspect_shows_every_scene_and_a_picture(mhiflab: Run, layouts, tmp_path):
    shown = ok(mhiflab("data", "inspect", layouts["png"], "--thumbnail", "sheet.png"))
    row = next(line for line in shown.splitlines() if "a_ms" in line)
    for word in ("31 bands 40x48, uint16, 16 bits", "of 65535 (100.0% used)", "400 to 700 nm"):
        assert word in row
    assert Image.open(tmp_path / "sheet.png").size == (96, 40)
    words = ("data", "inspect", layouts["mat"] / "a_ms.mat")
    assert "say it with --full-scale" in " ".join(mhiflab(*words).stdout.split())
    one = ok(mhiflab(*words, "--full-scale", "65535"))
    assert "40 x 48 x 31" in one
    assert "no wavelengths" in one


def test_inspect_reports_bad_files_and_goes_on(mhiflab: Run, layouts):
    good = layouts["h5"] / "a_ms.h5"
    (layouts["h5"] / "half.h5").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    write_h5(layouts["h5"] / "nan.h5", np.full((31, 8, 8), np.nan, np.float32))
    done = mhiflab("data", "inspect", layouts["h5"])
    failed(done, "2 of 4 scenes cannot be read; see the table")
    text = " ".join(done.stdout.split())
    assert "40x48" in text
    assert "NaN or inf" in text
    failed(mhiflab("data", "inspect", "absent.h5"), "1 of 1 scenes cannot be read")


def test_prepare_with_a_split_of_ones_own_and_export(mhiflab: Run, layouts, tmp_path):
    write_h5(layouts["h5"] / "c_ms.h5", cube(2))
    parts = {"train": ["a_ms"], "validation": [], "test": ["b_ms"]}
    (tmp_path / "own.json").write_text(json.dumps(parts))
    words = ("--source", layouts["h5"], "--out", "store.h5")
    shown = ok(mhiflab("data", "prepare", "cave", *words, "--split", "own.json"))
    assert "2 scenes" in shown
    assert "1 scenes of the source stand in no part" in shown
    words = ("--source", "store.h5", "--protocol", "cave_x4", "--out", "train.h5")
    shown = ok(mhiflab("data", "export", *words, "--part", "train", "--patch", 32, "--stride", 8))
    assert "6 images of 1 scenes" in shown
    assert "bands of RGB: B,G,R" in shown
    with h5py.File(tmp_path / "train.h5") as file:
        assert file["LRHSI"].shape == (6, 31, 8, 8)
        expected = cube(0)[:, 8:40, 16:48] / np.float32(65535)
        np.testing.assert_array_equal(file["GT"][5], expected)
    words = (*words[:-1], "validation.h5", "--part", "validation")
    failed(mhiflab("data", "export", *words), "validation.h5: found nothing to export")


def test_mistakes_are_named(layouts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def mistake(message: str, *words: object) -> None:
        with pytest.raises(UserError, match=message):
            app(["data", *map(str, words)], standalone_mode=False)

    source = ("--source", layouts["h5"], "--out", "store.h5")
    message = "split mhfnet_20_12: found no scene balloons_ms, beads_ms"
    mistake(message, "prepare", "cave", *source, "--split", "mhfnet_20_12")
    mistake("--full-scale: found with jasper", "prepare", "jasper", *source, "--full-scale", 9)
    mistake("expected 31 bands from 420 to 720 nm", "prepare", "harvard", *source)
    mistake("absent: no such file", "prepare", "files", "--source", "absent", "--out", "x")
    for text in ("400:705:10", "400:700:0", "400:700", "nm", "400:700:1e-300"):
        message = f"found '{text}', expected FIRST:LAST:STEP"
        mistake(message, "prepare", "files", *source, "--wavelengths", text)
    app(["data", "prepare", "cave", *map(str, source)], standalone_mode=False)
    export = ("export", "--source", "store.h5", "--out", "out.h5")
    mistake("found 'x', expected one of cave", *export, "--protocol", "x", "--part", "all")
    mistake("the store has no split", *export, "--protocol", "cave_x4", "--part", "test")
    words = ("--protocol", "cave_x4", "--part", "all", "--stride", 8)
    mistake("store.h5: found a file there", *export[:-1], "store.h5", *words)
    mistake("expected a name ending in .png", "inspect", "store.h5", "--thumbnail", "store.h5")
    mistake("--stride: found without --patch", *export, *words)
    mistake("^--patch: found 30, expected a multiple of 4", *export, *words, "--patch", 30)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["h5", "mat", "npy", "png", "store.h5"], "nothing half-written"


def test_splits_and_protocols_are_listed(mhiflab: Run):
    shown = ok(mhiflab("data", "splits"))
    assert "alphabetical_20_12" in shown
    assert "Harvard: which 10 and 10" in shown
    shown = ok(mhiflab("data", "protocols"))
    for word in ("cave_x4", "known", "inferred", "nikon_d700", "sigma 0.5"):
        assert word in shown


@here
@pytest.mark.parametrize(
    ("source", "scenes", "watercolors"), [(PNGS, 2, True), (CROPS, 18, False)], ids=["png", "h5"]
)
def test_real_cave_is_prepared(source, scenes, watercolors, mhiflab: Run, tmp_path):
    shown = ok(mhiflab("data", "prepare", "cave", "--source", source, "--out", "cave.h5"))
    assert f"{scenes} scenes" in shown
    found = ok(mhiflab("data", "fingerprint", source, "cave.h5")).splitlines()
    hashes = [line.split("  ")[0] for line in found]
    half = len(found) // 2
    assert hashes[:half] == hashes[half:]
    assert shown.split("Fingerprint")[1].strip() == hashes[-1]
    with h5py.File(tmp_path / "cave.h5") as file:
        assert {group["hsi"].dtype for group in file["scenes"].values()} == {np.dtype("u2")}
        if watercolors:
            assert b"8-bit" in file["scenes/watercolors_ms"].attrs["notes"]


@here
def test_interrupted_command_continues(mhiflab: Run, tmp_path):
    words = ["data", "prepare", "cave", "--source", str(CROPS), "--out", "cave.h5"]
    staging = tmp_path / "cave.h5.partial"
    # It stands still in the fourth scene, so the signal comes there on any machine.
    code = """
import sys, time
import feinfn.data.prepare as prepare
from mhiflab.cli.main import main
staged = []
def stage(*args, really=prepare._stage):
    if len(staged) == 3:
        print('fourth scene', flush=True)
        time.sleep(600)
    staged.append(args)
    really(*args)
prepare._stage = stage
main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert any("fourth scene" in line for line in child.stdout)
        child.send_signal(signal.SIGINT)
        message = " ".join(child.stderr.read().split())
    assert child.returncode == 1
    assert re.search(r"error: stopped; 3 of 18 finished scenes are kept, and the same", message)
    assert len(list(staging.glob("*.json"))) == 3
    assert not (tmp_path / "cave.h5").exists()
    shutil.copytree(staging, tmp_path / "seen")
    ok(mhiflab(*words))
    assert not staging.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cave.h5", "seen"]


def test_what_readers_take_for_granted_is_said(mhiflab: Run, tmp_path):
    np.save(tmp_path / "a.npy", (cube(0) // 257).astype(np.uint8))
    told = ("--bands-axis", "0")
    made = mhiflab("data", "prepare", "files", "--source", "a.npy", "--out", "a.h5", *told)
    again = mhiflab("data", "fingerprint", "a.npy", "a.h5", *told)
    for done in (made, again):
        ok(done)
        assert "scenes: 8 bits of which the file says no scale: 255 is taken as 1" in done.stderr
    assert len(again.stdout.splitlines()) == 4
