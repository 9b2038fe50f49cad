"""`mhiflab fuse`: recorded networks on files, against what their runs recorded."""

import json
import shutil
import warnings
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy.io import loadmat, savemat

from feinfn.data.images import read_cube, read_image
from feinfn.data.pairs import simulated_inputs
from feinfn.data.source import load_scene
from feinfn.errors import UserError
from feinfn.inference import apply
from feinfn.inference.apply import Trained, fuse_files, load_trained
from feinfn.inference.inputs import BEYOND
from feinfn.methods.configs import SSRNetConfig
from feinfn.methods.learned.ssrnet import SSRNet
from feinfn.methods.network import fuse
from feinfn.methods.weights import save_weights
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import Inputs, upsample
from mhiflab.cli.fuse import fuse as fuse_command
from mhiflab.paths import Lab
from mhiflab.record.artifacts import QUICKLOOK_FILE, WINDOW_STEPS, artifact_file
from mhiflab.record.store import open_store, tracking_uri, trial_runs
from mhiflab.record.writer import trial_record

TOLERANCE = 1e-5
"""Rounding of sums over strips of another height, for values in [0, 1]."""


@pytest.fixture
def run(recorded):
    """Return lab and entry of a finished run."""
    study, entries = recorded
    return Lab(study.parent / "lab"), entries[-1]


@pytest.fixture
def pair(run, tmp_path):
    """Return the first test image of the run as its network saw it, and both as files."""
    _, entry = run
    spec = entry.trial.spec
    scene = load_scene(spec.data, spec.data.test[0])
    simulated = simulated_inputs(scene, spec.protocol, torch.device("cpu")).inputs
    np.save(tmp_path / "hsi.npy", simulated.lr_hsi_BShw[0].numpy())
    np.save(tmp_path / "msi.npy", simulated.msi_BMHW[0].numpy())
    np.save(tmp_path / "reference.npy", simulated.reference_BSHW[0].numpy())
    return simulated, tmp_path / "hsi.npy", tmp_path / "msi.npy"


@pytest.fixture
def fuse_to(run, pair, tmp_path):
    """Return the command with a run, both files and an output, each to be replaced."""
    lab, entry = run
    words = {"hsi": pair[1], "msi": pair[2], "fused": tmp_path / "out" / "fused.npy"}
    return partial(fuse_command, **words, run=entry.key, lab=lab.root)


def weights(run) -> Path:
    lab, entry = run
    return lab.checkpoints(entry.key) / "best.safetensors"


def test_run_weights_and_python_give_what_the_run_recorded(run, pair, mhiflab, tmp_path):
    lab, entry = run
    simulated, hsi, msi = pair
    words = ["fuse", "--hsi", hsi, "--msi", msi, "--lab", lab.root]
    by_run = mhiflab(*words, "--run", entry.key[:8], "--out", "a/fused.npy", "--memory", 256)
    assert by_run.returncode == 0, by_run.stderr
    assert "LR-HSI upsampled bicubic, as protocol cave_x4 says" in by_run.stdout
    by_weights = mhiflab(*words, "--weights", weights(run), "--out", "b/fused.npy", "--memory", 256)
    assert by_weights.returncode == 0, by_weights.stderr
    assert "assumed, because the weights do not say it" in by_weights.stdout
    for name in ("fused.npy", "fused.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["fused.npy", "fused.png"]

    fused = np.load(tmp_path / "a" / "fused.npy")
    assert fused.dtype == np.float32
    assert fused.shape == simulated.reference_BSHW.shape[1:]
    fuse_command(hsi=hsi, msi=msi, fused=tmp_path / "c.h5", run=entry.key[:8], lab=lab.root)
    with h5py.File(tmp_path / "c.h5") as file:
        assert file.attrs["run_key"] == entry.key
    np.testing.assert_allclose(fuse_files(weights(run), hsi, msi), fused, rtol=0, atol=TOLERANCE)

    store = open_store(lab, tracking_uri(lab))
    run_id = trial_runs(store, entry.key)[entry.key].info.run_id
    name = f"{entry.trial.spec.data.test[0]}/window"
    with artifact_file(store, run_id, QUICKLOOK_FILE) as path, np.load(path) as kept:
        (row, col), window = kept[f"{name}/place"], kept[f"{name}/fused"]
    part = fused[:, row : row + window.shape[1], col : col + window.shape[2]]
    # Rounded to whole steps, at whose middle an error of rounding may tip either way.
    assert abs(part * WINDOW_STEPS - window).max() <= 0.5 + TOLERANCE * WINDOW_STEPS
    assert np.ptp(window) > WINDOW_STEPS / 2


def test_memory_budget_changes_rounding_alone(run, pair):
    found = [fuse_files(weights(run), *pair[1:], memory_mib=m) for m in (None, 77, 1000)]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=TOLERANCE)
    with pytest.raises(UserError, match="memory_mib: found 65, expected at least"):
        fuse_files(weights(run), *pair[1:], memory_mib=65)
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"memory_mib: found .*, expected a number > 0"):
            fuse_files(weights(run), *pair[1:], memory_mib=wrong)


def test_bands_that_are_not_those_of_the_training_are_told(fuse_to, pair, tmp_path, capsys):
    hsi = np.load(pair[1])
    own = np.linspace(400, 700, 31)
    for shift, told in ((0, False), (4.9, False), (5.1, True), (500, True)):
        np.savez(tmp_path / "hsi.npz", hsi=hsi, wavelength_nm=own + shift)
        fuse_to(hsi=tmp_path / "hsi.npz", fused=tmp_path / f"{shift}.npy")
        text = (
            f"hsi.npz: found 31 bands from {400 + shift:g} to {700 + shift:g} nm, expected the 31"
        )
        assert (f"{text} from 400 to 700 nm" in capsys.readouterr().out) == told
    fuse_to(fused=tmp_path / "given.npy", wavelengths="900:1200:10")
    assert "found 31 bands from 900 to 1200 nm, expected" in capsys.readouterr().out


def test_network_without_strips_refuses_a_budget(tmp_path):
    network = SSRNet(SSRNetConfig(hsi_bands=5, msi_bands=2))
    trained = Trained(network, "bicubic", None)
    assert trained.bands == (5, 2)
    assert trained.fuse(torch.rand(1, 5, 8, 8), torch.rand(1, 2, 32, 32)).shape == (1, 5, 32, 32)
    save_weights(tmp_path / "w.safetensors", network.state_dict(), network.config, {})
    with pytest.raises(UserError, match="memory_mib: found 600, expected none, because model"):
        load_trained(tmp_path / "w.safetensors", memory_mib=600)


def test_protocol_beside_the_weights_says_how_to_upsample(run, pair, tmp_path):
    simulated, hsi, msi = pair
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(weights(run), folder)
    with pytest.raises(UserError, match=r"found weights without protocol\.json"):
        load_trained(folder)
    nearest = replace(PROTOCOLS["cave_x4"], upsampling="nearest")
    (folder / "protocol.json").write_text(json.dumps(asdict(nearest)))
    model = load_trained(folder).model
    lr, fine = simulated.lr_hsi_BShw, simulated.msi_BMHW
    expected = fuse(model, Inputs(fine, upsample(lr, nearest), lr))[0].numpy()
    np.testing.assert_array_equal(fuse_files(folder, hsi, msi), expected)
    np.testing.assert_array_equal(
        fuse_files(weights(run), hsi, msi, upsampling="nearest"), expected
    )
    assert abs(fuse_files(folder, hsi, msi, upsampling="bicubic") - expected).max() > 0.01
    with pytest.raises(UserError, match=r"upsampling: found 'cubic', expected one of nearest"):
        load_trained(folder, "cubic")
    (folder / "protocol.json").write_text("{}")
    with pytest.raises(UserError, match=r"protocol\.json: cannot be read as a protocol"):
        load_trained(folder)


def save_as(path: Path, cube: np.ndarray) -> Path:
    """Save a cube as another program would, in 16 bits where the format is of images."""
    kind = path.suffix
    if kind == ".mat":
        savemat(path, {"cube": np.moveaxis(cube, 0, -1)})
    elif kind == ".npz":
        np.savez(path, cube=cube)
    elif kind == ".h5":
        with h5py.File(path, "w") as file:
            file["GT"], file["wavelength_nm"] = cube, np.linspace(400, 700, len(cube))
    else:
        import rasterio

        whole = np.rint(cube * 65535).astype(np.uint16)
        if kind == "":
            from PIL import Image

            path.mkdir()
            for i, band in enumerate(whole, 1):
                Image.fromarray(band).save(path / f"{i:02d}.png")
            return path
        driver = {".tif": "GTiff", ".hdr": "ENVI"}[kind]
        bands, rows, columns = whole.shape
        with warnings.catch_warnings(action="ignore"):
            data = path.with_suffix(".img") if kind == ".hdr" else path
            profile = {"driver": driver, "count": bands, "height": rows, "width": columns}
            with rasterio.open(data, "w", dtype="uint16", **profile) as file:
                file.write(whole)
    return path


@pytest.mark.parametrize("kind", [".mat", ".npz", ".h5", ".tif", ".hdr", ""])
def test_every_input_format_gives_the_same_image(kind, run, pair, tmp_path):
    simulated, hsi, msi = pair
    expected = fuse_files(weights(run), hsi, msi)
    cubes = simulated.lr_hsi_BShw[0].numpy(), simulated.msi_BMHW[0].numpy()
    files = [save_as(tmp_path / f"{n}{kind}", x) for n, x in zip("ab", cubes, strict=True)]
    # The network's own steepness turns half a step of 16 bits into more.
    limit = TOLERANCE if kind in (".mat", ".npz", ".h5") else 1e-3
    full_scale = None if kind in (".mat", ".npz", ".h5") else 65535
    found = fuse_files(weights(run), *files, full_scale=full_scale)
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


def test_integers_of_other_scales_and_axes_are_read_as_told(run, pair, tmp_path):
    _, hsi, msi = pair
    for path in (hsi, msi):
        whole = np.rint(np.load(path) * 4095).astype(np.int32)
        np.savez(tmp_path / path.stem, cube=np.moveaxis(whole, 0, -1), other=whole[None, 0])
    files = tmp_path / "hsi.npz", tmp_path / "msi.npz"
    words = {"key": "cube", "msi_key": "cube", "full_scale": 4095.0, "bands_axis": 2}
    found = fuse_files(weights(run), *files, **words)
    np.testing.assert_allclose(found, fuse_files(weights(run), hsi, msi), rtol=0, atol=1e-2)
    other = fuse_files(weights(run), *files, **words | {"msi_full_scale": 8190.0})
    assert abs(other - found).max() > 0.05


@pytest.mark.parametrize("kind", [".mat", ".npy", ".npz", ".h5"])
def test_every_output_format_is_read_back_and_has_the_same_bytes_again(
    kind, fuse_to, run, pair, tmp_path, monkeypatch
):
    expected = fuse_files(weights(run), *pair[1:])
    out = tmp_path / f"fused{kind}"
    fuse_to(fused=out, wavelengths="400:700:10")
    first = out.read_bytes()
    np.testing.assert_array_equal(read_cube(out).values_SHW, expected)
    assert read_cube(out).values_SHW.dtype == np.float32
    if kind == ".mat":
        assert loadmat(out)["fused"].shape == (*expected.shape[1:], expected.shape[0])
    if kind != ".npy":
        np.testing.assert_array_equal(read_image(out).wavelengths_nm, np.arange(400, 701, 10))
    # The clock, which MATLAB files tell.
    monkeypatch.setattr("time.asctime", lambda *given: "then")
    fuse_to(fused=out, wavelengths="400:700:10", force=True)
    assert out.read_bytes() == first


def test_picture_shows_the_errors_of_a_reference(fuse_to, tmp_path):
    fuse_to()
    plain = imread(tmp_path / "out" / "fused.png")
    fuse_to(reference=tmp_path / "reference.npy", force=True)
    compared = imread(tmp_path / "out" / "fused.png")
    # A second row, and one more column.
    assert compared.shape[0] > 1.2 * plain.shape[0]
    assert compared.shape[1] > plain.shape[1]


def test_notes_tell_another_ratio_and_an_unlikely_scale(fuse_to, pair, tmp_path, capsys):
    low = np.load(pair[1])[:, ::2, ::2] / 16
    np.save(tmp_path / "low.npy", low)
    fuse_to(hsi=tmp_path / "low.npy")
    shown = capsys.readouterr().out
    assert "Trained at ratio 4, used at ratio 8" in shown
    assert f"low.npy: only {low.max():.1%} of its full scale is used" in shown
    assert "msi.npy: only" not in shown


def changed(path: Path, change) -> Path:
    out = path.with_name("changed.npy")
    np.save(out, change(np.load(path)))
    return out


BAD = {
    "bands of the HSI": (
        "hsi",
        lambda x: x[:30],
        r"changed\.npy: found shape \(30, .* expected 31 bands of the LR-HSI",
    ),
    "bands of the MSI": ("msi", lambda x: x[:2], r"changed\.npy: .* expected 3 bands of the MSI"),
    "size": (
        "msi",
        lambda x: x[:, :-1],
        r"hsi\.npy and .*changed\.npy: found an LR-HSI of 32x32 .* MSI of 127x128, expected",
    ),
    "range": (
        "hsi",
        lambda x: x * 10000,
        r"found values from .* in the LR-HSI, expected \[0, 1\]; .*--full-scale",
    ),
    "negative": ("msi", lambda x: x - BEYOND - 0.1, r"found values from -0\.\d+ to .* in the MSI"),
    "NaN": ("hsi", lambda x: x * np.nan, "found 31744 NaN or inf values"),
}


@pytest.mark.parametrize("kind", BAD)
def test_images_that_do_not_fit_are_named(kind, fuse_to, pair, tmp_path):
    which, change, message = BAD[kind]
    path = changed({"hsi": pair[1], "msi": pair[2]}[which], change)
    with pytest.raises(UserError, match=message):
        fuse_to(**{which: path})
    assert not (tmp_path / "out").exists()


def test_values_a_little_outside_are_taken_and_the_result_is_not(fuse_to, pair, tmp_path):
    fuse_to(hsi=changed(pair[1], lambda x: x * (1 + BEYOND) - BEYOND / 2))
    fused = np.load(tmp_path / "out" / "fused.npy")
    assert fused.min() >= 0
    assert fused.max() <= 1


def test_files_are_never_overwritten_unasked(fuse_to, pair, tmp_path):
    fuse_to()
    before = {p: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match=r"fused\.npy: found a file there, .* --force"):
        fuse_to()
    (tmp_path / "out" / "fused.npy").unlink()
    with pytest.raises(UserError, match=r"fused\.png: found a file there, .* --force"):
        fuse_to()
    fuse_to(force=True)
    assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    (tmp_path / "link.npy").symlink_to(pair[1])
    with pytest.raises(UserError, match="which would overwrite the input"):
        fuse_to(fused=tmp_path / "link.npy", force=True)


def test_wrong_words_are_named(fuse_to, run, tmp_path):
    lab, entry = run
    ours, model = weights(run), lab.root / "no.safetensors"
    wrong = {
        "--run, --weights: found both": {"weights": ours},
        "--run, --weights: found neither": {"run": ""},
        r"fused\.jpg: found suffix '\.jpg', expected one of \.mat": {"fused": Path("fused.jpg")},
        "run 'abc': expected a run key or at least its first 6 digits": {"run": "abc"},
        "run 'Study!': expected a run key": {"run": "Study!"},
        "run 000000: found no such run among the 4 on record": {"run": "000000"},
        r"no\.safetensors: cannot be read as weights": {"run": "", "weights": model},
        "device: found 'tpu', which cannot be used": {"device": "tpu"},
        "--wavelengths: found 30 of them, expected 31": {"wavelengths": "400:690:10"},
        "--wavelengths: found 'x', expected FIRST:LAST:STEP": {"wavelengths": "x"},
        r"hsi\.npy: found arrays .*, expected no; name one of these with --key": {"key": "no"},
        r"hsi\.npy: .*found full scale 0, expected a number > 0": {"full_scale": 0.0},
        r"hsi\.npy: found bands_axis 3, expected 0, 1 or 2": {"bands_axis": 3},
        r"hsi\.npy: found \(32, 32\) rows and columns, expected \(128, 128\)": {
            "reference": tmp_path / "hsi.npy"
        },
        "no record yet": {"lab": tmp_path / "elsewhere"},
    }
    for message, words in wrong.items():
        with pytest.raises(UserError, match=message):
            fuse_to(**words)
    # An unfinished run that begins as this one does.
    twin = entry.key[:6] + "0" * 58
    uri = tracking_uri(lab)
    with trial_record(lab, uri, twin, "unfinished", "parent", {}):
        pass
    try:
        with pytest.raises(UserError, match=rf"found 2 runs that begin so \(.*{twin}.*give more"):
            fuse_to(run=entry.key[:6])
        with pytest.raises(UserError, match="found it RUNNING, expected FINISHED"):
            fuse_to(run=twin)
    finally:
        store = open_store(lab, tracking_uri(lab))
        store.client.delete_run(trial_runs(store, twin)[twin].info.run_id)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_untested_run_has_no_network_to_offer(fuse_to, run):
    lab, _ = run
    key = "f" * 64
    with trial_record(lab, tracking_uri(lab), key, "untested", "parent", {}) as record:
        record.finish()
    try:
        with pytest.raises(
            UserError, match="found no model with it, expected a run that was trained"
        ):
            fuse_to(run=key)
    finally:
        store = open_store(lab, tracking_uri(lab))
        store.client.delete_run(trial_runs(store, key)[key].info.run_id)


def test_full_disk_leaves_nothing(fuse_to, tmp_path, monkeypatch):
    def full(*given, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    with pytest.raises(UserError, match=r"fused\.npy: no space left"):
        fuse_to()
    assert list((tmp_path / "out").iterdir()) == []


def test_too_little_memory_is_said(fuse_to, run, pair, tmp_path, monkeypatch):
    def no_room(*given):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 bytes\nmore")

    monkeypatch.setattr(apply, "fuse", no_room)
    with pytest.raises(UserError, match=r"too little memory to fuse them \(.*bytes\); give a"):
        fuse_to()
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(apply, "fuse", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuse_to()
