"""`mhiflab fuse` on files of other scales, orders and places, with a network that never trained."""

import hashlib
import json
import warnings
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from feinfn.config import ModelConfig
from feinfn.errors import UserError
from feinfn.inference import apply
from feinfn.inference.apply import fuse_files
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.sensor import sensor_of
from feinfn.methods.weights import save_weights
from feinfn.protocols.named import PROTOCOLS
from mhiflab.cli.fuse import fuse as fuse_command
from mhiflab.render.fused import quick_look

CONFIG = ModelConfig(
    hsi_bands=31,
    msi_bands=3,
    feat_dim=4,
    guide_dim=4,
    mlp_widths=(8,),
    decoder_width=8,
    spatial_blocks=1,
    spectral_blocks=1,
)


@pytest.fixture
def model(tmp_path) -> Path:
    """Return the folder of a network as it began, under cave_x4."""
    torch.manual_seed(0)
    folder = tmp_path / "model"
    save_weights(folder / "best.safetensors", FeINFN(CONFIG).state_dict(), CONFIG, {})
    (folder / "protocol.json").write_text(json.dumps(asdict(PROTOCOLS["cave_x4"])))
    return folder


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """Return an LR-HSI, an MSI and a reference as floats in [0, 1]."""
    rng = np.random.default_rng(0)
    shapes = {"hsi": (31, 4, 4), "msi": (3, 16, 16), "reference": (31, 16, 16)}
    paths = {name: tmp_path / f"{name}.npy" for name in shapes}
    for name, shape in shapes.items():
        np.save(paths[name], rng.random(shape, dtype=np.float32))
    return paths


@pytest.fixture
def fuse_to(model, files, tmp_path):
    """Return the command with the folder and both images, each to be replaced."""
    words = {"hsi": files["hsi"], "msi": files["msi"], "fused": tmp_path / "out" / "fused.npy"}
    return partial(fuse_command, **words, weights=model, lab=tmp_path / "lab")


def as_integers(path: Path, full_scale: int, kind: type) -> Path:
    out = path.with_name(f"{path.stem}_{np.dtype(kind)}.npy")
    np.save(out, np.rint(np.load(path) * full_scale).astype(kind))
    return out


@pytest.fixture
def drawn(monkeypatch):
    """Return what was drawn: the fused HSI, and the images of the fusion."""
    seen = []
    place = "mhiflab.render.fused.quick_look"
    monkeypatch.setattr(place, lambda *given: seen.append(given) or quick_look(*given))
    return seen


@pytest.mark.parametrize("other", [None, (255, np.uint8), (4095, np.uint16), (4095, np.int16)])
def test_a_scale_is_shared_by_integers_of_one_type_alone(other, fuse_to, files, model, drawn):
    hsi = as_integers(files["hsi"], 4095, np.uint16)
    msi, reference = files["msi"], files["reference"]
    own = {}
    if other:
        msi, reference = as_integers(msi, *other), as_integers(reference, *other)
        if other[1] is np.int16:
            own = {"msi_full_scale": 4095.0, "reference_full_scale": 4095.0}
    fuse_to(hsi=hsi, msi=msi, reference=reference, full_scale=4095.0, **own)
    ((fused, shown, _),) = drawn
    step = 0.51 / (other[0] if other else 4095)
    for name, found, limit in (
        ("hsi", shown.hsi, 0.51 / 4095),
        ("msi", shown.msi, step),
        ("reference", shown.reference, step),
    ):
        np.testing.assert_allclose(found.values_SHW, np.load(files[name]), rtol=0, atol=limit)
    own.pop("reference_full_scale", None)
    again = fuse_files(model, hsi, msi, full_scale=4095.0, **own)
    np.testing.assert_array_equal(again, fused)


def test_units_that_are_not_known_are_asked_for_by_the_option_of_the_file(fuse_to, files):
    for name, option in (("msi", "msi-"), ("reference", "reference-")):
        whole = as_integers(files[name], 4095, np.int32)
        with pytest.raises(
            UserError, match=rf"{name}_int32.* type int32 up to .*with --{option}full-scale"
        ):
            fuse_to(**{name: whole})
        percent = whole.with_name("percent.npy")
        np.save(percent, 100 * np.load(files[name]))
        with pytest.raises(UserError, match=rf"values from .*\(--{option}full-scale\)"):
            fuse_to(**{name: percent})
        several = whole.with_name("several.npz")
        np.savez(several, a=np.load(files[name]), b=np.load(files[name]))
        with pytest.raises(UserError, match=f"with --{option}key"):
            fuse_to(**{name: several})


def test_a_scale_in_an_envi_header_is_not_overruled(fuse_to, files, drawn):
    rasterio = pytest.importorskip("rasterio")
    hsi = as_integers(files["hsi"], 4095, np.uint16)
    whole = np.rint(np.load(files["msi"]) * 10000).astype(np.uint16)
    data = hsi.with_name("msi.img")
    profile = {"driver": "ENVI", "count": 3, "height": 16, "width": 16, "dtype": "uint16"}
    with warnings.catch_warnings(action="ignore"), rasterio.open(data, "w", **profile) as file:
        file.write(whole)
    header = data.with_suffix(".hdr")
    header.write_text(header.read_text() + "reflectance scale factor = 10000\n")
    fuse_to(hsi=hsi, msi=header, full_scale=4095.0)
    found = drawn[0][1].msi.values_SHW
    np.testing.assert_allclose(found, np.load(files["msi"]), rtol=0, atol=1e-4)


def test_one_file_of_both_images_is_read_by_its_keys(fuse_to, files, tmp_path, capsys):
    np.savez(tmp_path / "both.npz", a=np.load(files["hsi"]), b=np.load(files["msi"]) / 16)
    fuse_to(hsi=tmp_path / "both.npz", msi=tmp_path / "both.npz", key="a", msi_key="b")
    assert "both.npz: only 6" in capsys.readouterr().out


def test_dark_references_are_told(fuse_to, files, tmp_path, capsys):
    np.save(tmp_path / "dark.npy", np.load(files["reference"]) / 16)
    fuse_to(reference=tmp_path / "dark.npy")
    assert "dark.npy: only 6" in capsys.readouterr().out


def test_order_of_the_msi_bands_is_told_and_checked(fuse_to, files, model, tmp_path, capsys):
    fuse_to()
    assert "MSI bands taken as B, G, R (protocol cave_x4)" in capsys.readouterr().out
    fuse_to(weights=model / "best.safetensors", fused=tmp_path / "again.npy")
    assert "MSI bands taken as B, G, R" in capsys.readouterr().out
    alone = model.parent / "alone.safetensors"
    alone.write_bytes((model / "best.safetensors").read_bytes())
    fuse_to(weights=alone, fused=tmp_path / "alone.npy")
    assert "which its weights alone do not say" in capsys.readouterr().out

    named = tmp_path / "named.npz"
    np.savez(named, msi=np.load(files["msi"]), wavelength_nm=[470.0, 540.0, 620.0])
    fuse_to(msi=named, fused=tmp_path / "named.npy")
    expected = np.load(tmp_path / "named.npy")
    np.savez(named, msi=np.load(files["msi"])[::-1], wavelength_nm=[620.0, 540.0, 470.0])
    np.testing.assert_array_equal(fuse_files(model, files["hsi"], named), expected)
    capsys.readouterr()
    np.savez(named, msi=np.load(files["msi"])[[1, 2, 0]], wavelength_nm=[540.0, 620.0, 470.0])
    fuse_to(msi=named, fused=tmp_path / "shuffled.npy")
    assert "cave_x4): bands 3, 1, 2 of the file, by wavelength" in capsys.readouterr().out
    for found in (np.load(tmp_path / "shuffled.npy"), fuse_files(model, files["hsi"], named)):
        np.testing.assert_array_equal(found, expected)
    fuse_to(msi=named, msi_bands="2,3,1", fused=tmp_path / "told.npy")
    assert abs(np.load(tmp_path / "told.npy") - expected).max() > 1e-3
    assert "bands 2, 3, 1 of the file, as was asked" in capsys.readouterr().out
    for wrong in ("2,3,4", "0,1,2", "b,g,r"):
        with pytest.raises(UserError, match="--msi-bands: found"):
            fuse_to(msi=named, msi_bands=wrong, fused=tmp_path / "wrong.npy")


def test_swapped_images_are_told_apart_by_size(fuse_to, files, model, tmp_path):
    small = tmp_path / "small.npy"
    np.save(small, np.load(files["msi"])[:, :4, :4])
    with pytest.raises(UserError, match=r"LR-HSI of 16x16 pixels and an MSI of 4x4, .* as what"):
        fuse_to(hsi=files["reference"], msi=small)


@pytest.mark.parametrize("given", [5.0, 0.0])
def test_a_budget_that_is_no_use_is_named_as_its_option(given, fuse_to):
    with pytest.raises(UserError, match=rf"^--memory: found {given:g}.*, expected"):
        fuse_to(memory=given)


@pytest.mark.parametrize("name", ["hsi", "msi"])
def test_values_that_are_no_numbers_are_counted_and_placed(name, fuse_to, files):
    values = np.load(files[name])
    values[1, 2, 3], values[2, 0, 1] = np.nan, -np.inf
    np.save(files[name], values)
    message = (
        rf"{name}: found 2 NaN or inf values of {values.size}, the first in band 1, row 2, col"
    )
    with pytest.raises(UserError, match=message + r"umn 3 \(counted from 0\)"):
        fuse_to()


def test_hdf5_says_where_it_is_from(fuse_to, model, tmp_path):
    weights = model / "best.safetensors"
    expected = {
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "protocol": "cave_x4",
        "upsampling": "bicubic",
        "mhiflab_version": version("mhiflab"),
    }
    fuse_to(fused=tmp_path / "fused.h5")
    with h5py.File(tmp_path / "fused.h5") as file:
        assert dict(file.attrs) == expected


def test_wavelengths_of_the_training_may_be_unknown_and_not_damaged(fuse_to, model, capsys):
    fuse_to(wavelengths="900:1200:10")
    assert "training, each" not in capsys.readouterr().out
    for text in ("{", "7", '["a"]'):
        (model / "wavelengths_nm.json").write_text(text)
        with pytest.raises(UserError, match=r"nm\.json: cannot be read as wavelengths .*copy"):
            fuse_to(force=True)


def test_an_msi_that_is_not_finer_is_refused(fuse_to, files, tmp_path):
    message = r"reference\.npy and .*msi\.npy: found an LR-HSI of 16x16 .* MSI of 16x16, .* least 2"
    with pytest.raises(UserError, match=message):
        fuse_to(hsi=files["reference"])
    assert not (tmp_path / "out").exists()


def test_constant_images_are_fused(fuse_to, files, tmp_path):
    for name in ("hsi", "msi"):
        np.save(files[name], np.zeros_like(np.load(files[name])))
    fuse_to(reference=files["hsi"].with_name("reference.npy"))
    assert np.isfinite(np.load(tmp_path / "out" / "fused.npy")).all()


def test_a_network_of_nan_gives_no_image(fuse_to, model, tmp_path):
    state = FeINFN(CONFIG).state_dict()
    state["spatial_encoder.head.bias"] *= float("nan")
    save_weights(model / "best.safetensors", state, CONFIG, {})
    with pytest.raises(UserError, match="found NaN in what the network makes"):
        fuse_to()
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_written_are_known_before_the_fusion(fuse_to, tmp_path, monkeypatch):
    monkeypatch.setattr(apply, "load_trained", lambda *given: 1 / 0)
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "other.png").mkdir()
    (tmp_path / "bands").mkdir()
    refused = {
        "folder.npy": "folder.npy: found a folder, expected a file",
        "other.npy": "other.png: found a folder, expected a file",
        "file/fused.npy": "file: found a file, expected a folder for fused.npy",
        "file/deeper/fused.npy": "file: found a file, expected a folder for fused.npy",
        "x" * 250 + ".npy": "cannot be written .*too long",
    }
    if Path("/proc/self").exists():
        refused |= dict.fromkeys(("/proc/fused.npy", "/proc/deep/fused.npy"), "cannot be written")
    for name, message in refused.items():
        for force in (False, True):
            with pytest.raises(UserError, match=message):
                fuse_to(fused=tmp_path / name, force=force)
    with pytest.raises(UserError, match=r"which would change the input .*bands"):
        fuse_to(hsi=tmp_path / "bands", fused=tmp_path / "bands" / "5.npy")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError):
        fuse_to(fused=tmp_path / "new" / "deeper" / "fused.npy")
    assert sorted(tmp_path.iterdir()) == before


def test_a_cut_between_the_two_files_leaves_none_of_them(fuse_to, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def cut(*given):
        raise KeyboardInterrupt

    for place, name in ((Path, "write_bytes"), (np, "save")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, cut)
            with pytest.raises(KeyboardInterrupt):
                fuse_to()
        assert list(out.iterdir()) == []
    fuse_to()
    assert sorted(p.name for p in out.iterdir()) == ["fused.npy", "fused.png"]


@pytest.mark.parametrize(
    ("base", "consistency", "first"),
    [
        ("lms", "msi", ["LR-HSI upsampled nearest, as was asked", "Projected on the MSI, SENSOR"]),
        ("aligned", "none", ["Base aligned, SENSOR"]),
        ("aligned", "both", ["Base aligned, SENSOR", "Projected on the MSI and LR-HSI, SENSOR"]),
    ],
)
def test_base_and_projection_are_told(base, consistency, first, fuse_to, files, tmp_path, capsys):
    config = replace(CONFIG, base=base, consistency=consistency)
    sensor = sensor_of(config, PROTOCOLS["cave_x4"], np.arange(400, 701, 10.0))
    weights = tmp_path / "physics.safetensors"
    save_weights(weights, FeINFN(config).state_dict(), config, {}, sensor)
    if base != "lms":
        with pytest.raises(UserError, match="--upsampling: found 'nearest', expected none"):
            fuse_to(weights=weights, upsampling="nearest")
    fuse_to(weights=weights, upsampling="nearest" if base == "lms" else None)
    told = capsys.readouterr().out.splitlines()[: len(first)]
    sensor_words = "for the sensor of protocol cave_x4"
    assert told == [line.replace("SENSOR", sensor_words) for line in first]
