"""Files for other programs: images in their usual formats, and pairs for training codes.

The pairs are HDF5 in the layout that codes of this field read, four float32 arrays in [0, 1],
[N, C, H, W]: `GT` is the reference, `LRHSI` the LR-HSI, `RGB` the MSI (of any bands), and `HSI_up`
the upsampled LR-HSI.
"""

import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from feinfn.config import TrainConfig
from feinfn.data.images import Image
from feinfn.data.pairs import NamedInputs, simulated_inputs, with_reference
from feinfn.data.patches import Patches
from feinfn.data.readers.array import NM, import_optional
from feinfn.data.scene import Scene
from feinfn.errors import UserError
from feinfn.files import write_atomic, write_bytes, write_hdf5
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import Pair
from feinfn.region import fused_valid

RASTERS = (".tif", ".tiff", ".hdr")
WRITTEN = (".mat", ".npy", ".npz", ".h5", *RASTERS)
"""Suffixes that `write_image` knows."""

NODATA = -9999.0
"""Number in ENVI files that means no data; other formats hold NaN."""

MAT_BYTES = 2**31 - 1
"""Largest variable of a version 5 .mat file, in bytes."""

MAT_HEAD = b"MATLAB 5.0 MAT-file, written by feinfn"
"""Start of a .mat file, in place of scipy's, which holds the time."""


def check_written(path: Path) -> None:
    """Raise `UserError` unless `write_image` knows the file's suffix and has what it needs."""
    if path.suffix.lower() not in WRITTEN:
        raise UserError(
            f"{path}: found suffix {path.suffix!r}, expected one of {', '.join(WRITTEN)}; choose "
            "another name"
        )
    if path.suffix.lower() in RASTERS:
        import_optional(path, "rasterio", "mhiflab[geo]")


def written_files(path: Path) -> tuple[Path, ...]:
    """Return the files that `write_image` writes: ENVI has a data file beside its header."""
    return (path, path.with_suffix(".img")) if path.suffix.lower() == ".hdr" else (path,)


def write_image(
    path: Path, image: Image, name: str, origin: Mapping[str, str] | None = None
) -> None:
    """Write an image as float32 in the format of the file's suffix, whole or not at all.

    Equal images give equal files. The array is called `name`, beside `wavelength_nm`; .npy files
    hold the array alone. `origin` becomes attributes of .h5 files and tags of GeoTIFF. Pixels
    without data are NaN, or -9999 in ENVI, which GeoTIFF, ENVI and .h5 files declare; the first two
    keep the georeference. Raises `UserError` for another suffix, a full disk, and more than 2 GiB
    as .mat.
    """
    check_written(path)
    kind, values = path.suffix.lower(), image.values_SHW.astype(np.float32, copy=False)
    if image.valid_HW is not None:
        values = np.where(image.valid_HW, values, np.float32(np.nan))
    about = {} if image.wavelengths_nm is None else {NM: image.wavelengths_nm}
    if kind == ".mat" and values.nbytes > MAT_BYTES:
        raise UserError(
            f"{path}: found an image of {values.nbytes / 2**30:.1f} GiB, expected less than 2 GiB, "
            "the limit of version 5 .mat files; write it as .h5"
        )

    def fill(file: h5py.File) -> None:
        for key, array in {name: values, **about}.items():
            file.create_dataset(key, data=array)
        if image.valid_HW is not None:
            file[name].attrs["_FillValue"] = np.float32(np.nan)
        file.attrs.update(origin or {})

    def write(partial_file: Path) -> None:
        from scipy.io import savemat

        with partial_file.open("wb") as file:
            if kind == ".npy":
                np.save(file, values)
            elif kind == ".npz":
                np.savez(file, **{name: values, **about})  # type: ignore[arg-type]
            else:
                savemat(file, {name: np.moveaxis(values, 0, -1), **about})
                # Replace the text at the start, which holds the time: equal images, equal bytes.
                file.seek(0)
                file.write(MAT_HEAD.ljust(116))

    if kind == ".h5":
        write_hdf5(path, fill)
    elif kind == ".hdr":
        _write_envi(path, image, values)
    elif kind in RASTERS:
        write_atomic(path, lambda file: _write_raster(file, "GTiff", image, values, origin or {}))
    else:
        write_atomic(path, write)


def _write_raster(
    path: Path, driver: str, image: Image, values: np.ndarray, origin: Mapping[str, str]
) -> None:
    """Write values as a raster with georeference, no-data value and wavelengths."""
    rasterio = import_optional(path, "rasterio", "mhiflab[geo]")
    bands, height, width = values.shape
    profile: dict[str, Any] = {"count": bands, "height": height, "width": width}
    profile |= {"dtype": "float32"}
    if driver == "GTiff":
        profile |= {"compress": "deflate", "predictor": 3, "tiled": True, "bigtiff": "if_safer"}
        profile |= {"photometric": "minisblack"}
        if image.valid_HW is not None:
            profile["nodata"] = np.nan
    array = image.array
    if array is not None and array.transform is not None:
        profile |= {"transform": rasterio.Affine(*array.transform), "crs": array.crs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # images without a georeference need none
        with rasterio.open(path, "w", driver=driver, **profile) as file:
            file.write(values)
            if driver == "GTiff":
                file.update_tags(**origin)
                for i, nm in enumerate(
                    () if image.wavelengths_nm is None else image.wavelengths_nm
                ):
                    file.set_band_description(i + 1, f"{nm:g} nm")
                    file.update_tags(i + 1, wavelength=repr(float(nm)), wavelength_units="nm")


def _write_envi(path: Path, image: Image, values: np.ndarray) -> None:
    """Write an ENVI header and its data file; the header comes last."""
    if image.valid_HW is not None:
        values = np.where(image.valid_HW, values, np.float32(NODATA))
    data = path.with_suffix(".img")
    with tempfile.TemporaryDirectory() as folder:
        raster = Path(folder) / data.name
        _write_raster(raster, "ENVI", image, values, {})
        header = raster.with_suffix(".hdr").read_text(encoding="utf-8")
        if image.valid_HW is not None:
            header += f"data ignore value = {NODATA:g}\n"
        if image.wavelengths_nm is not None:
            centres = ", ".join(repr(float(nm)) for nm in image.wavelengths_nm)
            header += f"wavelength units = Nanometers\nwavelength = {{{centres}}}\n"
        write_bytes(data, raster.read_bytes())
        write_bytes(path, header.encode())


KEYS = {
    "GT": "reference_BSHW",
    "LRHSI": "lr_hsi_BShw",
    "RGB": "msi_BMHW",
    "HSI_up": "lms_BSHW",
}
STRIDE_PX = 34
"""Besides 33, the only stride that cuts a scene of 512 pixels into 14x14 patches of 64 pixels, like
the released files (3,920 from 20 scenes); 34 covers more of the scene. Inferred from that count."""


def export(pairs: Iterable[Pair], path: Path, about: Mapping[str, Any]) -> int:
    """Write pairs one after another, with `about` as attributes; return the number of images.

    Raises `UserError` for pairs of different shapes, for no pairs, and for a full disk.
    """
    count = 0

    def fill(file: h5py.File) -> None:
        nonlocal count
        for pair in pairs:
            for key, field in KEYS.items():
                x = getattr(pair, field).cpu().numpy()
                if key not in file:
                    file.create_dataset(
                        key,
                        (0, *x.shape[1:]),
                        "f4",
                        maxshape=(None, *x.shape[1:]),
                        chunks=x[:1].shape,
                    )
                array = file[key]
                if array.shape[1:] != x.shape[1:]:
                    raise UserError(
                        f"{path}: found images of {key} of shape {x.shape[1:]} after others of "
                        f"{array.shape[1:]}, expected one shape; export patches or one size at once"
                    )
                array.resize(count + len(x), axis=0)
                array[count:] = x
                if np.isnan(x).any():
                    array.attrs["_FillValue"] = np.float32(np.nan)
            count += len(x)
        if not count:
            raise UserError(f"{path}: found nothing to export, expected at least one scene")
        file.attrs.update(about)

    write_hdf5(path, fill)
    return count


def facts(protocol: Protocol, names: Iterable[str], patch_px: int | None, stride_px: int) -> dict:
    """Return the attributes of an exported file, text and numbers."""
    patches = f"patches of {patch_px} px every {stride_px} px, row by row, each degraded by itself"
    return {
        "about": f"{patches} (as the released files seem to be: inferred)"
        if patch_px
        else "whole scenes",
        "band_order_of_RGB": ",".join(protocol.msi_order),
        "protocol": protocol.name,
        "protocol_definition": json.dumps(protocol.definition()),
        "scenes": json.dumps(list(names)),
    }


def simulated_pairs(
    scenes: Iterable[Scene], protocol: Protocol, patch_px: int | None, stride_px: int = STRIDE_PX
) -> Iterator[Pair]:
    """Yield the pairs of whole scenes, or one batch for each row of patches of each scene.

    A patch is degraded by itself: at its border the protocol's border applies, not its
    surroundings. Values that noise takes out of [0, 1] are clipped. Pixels without data are NaN,
    those of the LR-HSI whose PSF touches one too, and no patch holds any. Raises `UserError` for a
    patch that does not fit the scene or the ratio, and for scenes that do not fit the protocol.
    """
    count = 0
    for scene in scenes:
        for pair in _scene_pairs(
            with_reference(scene, protocol), protocol, patch_px, stride_px, count
        ):
            count += len(pair.reference_BSHW)
            yield Pair(*(getattr(pair, field.name).clamp(0, 1) for field in fields(pair)))


def _with_nan(image: NamedInputs) -> Pair:
    """Return a simulated pair with NaN in pixels without data."""
    pair, lr_valid_hw = image.inputs, image.lr_valid_hw
    assert isinstance(pair, Pair), "simulated images have a reference"
    if lr_valid_hw is None:
        return pair
    lms_valid_HW = fused_valid(None, lr_valid_hw, pair.lms_BSHW.shape[2:])
    masks = (image.msi_valid_HW, lms_valid_HW, lr_valid_hw, image.msi_valid_HW)
    parts = (getattr(pair, part.name) for part in fields(Pair))
    return Pair(
        *(
            x if valid is None else torch.where(torch.from_numpy(valid), x, torch.nan)
            for x, valid in zip(parts, masks, strict=True)
        )
    )


def _scene_pairs(
    scene: Scene, protocol: Protocol, patch_px: int | None, stride_px: int, noise_seed: int
) -> Iterator[Pair]:
    """Yield the pair of a scene, or one batch for each row of its patches."""
    if patch_px is None:
        yield _with_nan(simulated_inputs(scene, protocol, torch.device("cpu"), noise_seed))
        return
    config = TrainConfig(patch_px=patch_px, stride_px=stride_px)
    patches = Patches([scene], protocol, config, torch.device("cpu"), alone=True)
    windows = (replace(w, noise_seed=noise_seed + i) for i, w in enumerate(patches.grid))
    for _, row in groupby(windows, lambda window: window.top):
        yield patches.batch(list(row))
