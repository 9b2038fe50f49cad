"""HDF5 files, also those of MATLAB (v7.3) and Octave, with axes as those programs show them.

Both programs store arrays with their axes reversed, and structs as groups.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from feinfn.data.readers.array import NM, Array, Index, check_size, read_head, reading
from feinfn.errors import UserError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NO_ARRAYS = (b"char", b"cell", b"struct")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; any error within the block becomes a `UserError`."""
    read_head(path)
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        yield file


def is_hdf5(start: bytes) -> bool:
    """Return True if a file's first bytes are HDF5, with or without MATLAB's header before it."""
    return _SIGNATURE in (start[:8], start[512:520])


def hdf5_arrays(path: Path) -> tuple[dict[str, Array], bool]:
    """Return the real arrays by name, also those in groups, and if MATLAB or Octave wrote them.

    Those in groups are called `group/name`, in MATLAB's structs `struct.field`.
    """
    with _opened(path) as file:
        matlab = read_head(path).startswith(b"MATLAB 7.3") or any(
            "MATLAB_class" in item.attrs for item in _items(file).values()
        )
        octave = any("OCTAVE_NEW_FORMAT" in item.attrs for item in _items(file).values())
        turned = matlab or octave
        arrays = {}
        for place, name, dataset in _datasets(file):
            group = place.replace("/", ".") if matlab else place
            key = f"{group}{'.' if matlab else '/'}{name}" if group else name
            load = partial(_load, path, key, f"/{place}/{name}", turned)
            facts = _facts(dataset, turned)
            arrays[key] = Array(path=path, key=key, group=group, load=load, **facts)
    return arrays, turned


def _items(group: Any) -> dict[str, Any]:
    """Return the groups and datasets in a group by name, without links to other files."""
    links = {name: group.get(name, getclass=True, getlink=True) for name in group}
    # A hard link that cannot be followed is damage, which HDF5 names; a soft one may lead nowhere.
    items = {
        name: group[name] if link is h5py.HardLink else group.get(name)
        for name, link in links.items()
        if link is not h5py.ExternalLink
    }
    return {k: x for k, x in items.items() if isinstance(x, h5py.Dataset | h5py.Group)}


def _datasets(file: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield group, name and dataset of every real array; each group is visited once."""
    groups, seen = [("", file)], {file.id}
    while groups:
        place, group = groups.pop(0)
        for name, item in _items(group).items():
            if isinstance(item, h5py.Group):
                # MATLAB keeps the contents of cells in #refs#.
                if item.id not in seen and not name.startswith("#"):
                    seen.add(item.id)
                    groups.append((f"{place}/{name}".lstrip("/"), item))
            elif name == NM or (
                item.dtype.kind in "uif"
                and item.shape
                and item.attrs.get("MATLAB_class") not in _NO_ARRAYS
            ):
                yield place, name, item


def _facts(dataset: Any, turned: bool) -> dict[str, Any]:
    shape = dataset.shape or ()
    # GT is [S, H, W] in the plain files of this field.
    axes = "HWS" if turned else "SHW" if dataset.name == "/GT" else _axes_of_scales(dataset)
    if prisma := _prisma(dataset):
        return prisma
    unit = dataset.attrs.get("units", dataset.attrs.get("unit", ""))
    return {
        "shape": shape[::-1] if turned else shape,
        "dtype": _stored_dtype(dataset),
        "unit": unit.decode() if isinstance(unit, bytes) else str(unit),
        "axes": axes if len(shape) == 3 else "",
        "full_scale": _full_scale(dataset),
        **_conventions(dataset, unit),
    }


def _conventions(dataset: Any, unit: str) -> dict[str, Any]:
    """Return scale, offset and no-data as the CF conventions state them."""
    dtype, marked = _stored_dtype(dataset), _stored_dtype(dataset) != dataset.dtype
    part = 0.01 if unit.strip().lower() in ("percent", "%") else 1.0

    def stored(name: str) -> tuple[float, ...]:
        values = np.ravel(dataset.attrs.get(name, ()))
        if marked and values.dtype.kind == "i" and values.itemsize == dtype.itemsize:
            values = values.astype(dtype)  # -1 stands for 65535
        return tuple(values.astype(float).tolist()) if values.dtype.kind in "uif" else ()

    scale = tuple(x * part for x in _numbers(dataset, "scale_factor") or (1.0,))
    fill, *_ = (*stored("_FillValue"), *stored("missing_value"), None)
    other, *_ = (*(x for x in stored("missing_value") if str(x) != str(fill)), None)
    low, high = stored("valid_min") or (-np.inf,), stored("valid_max") or (np.inf,)
    ends = stored("valid_range") or (low[0], high[0])
    limited = len(ends) == 2 and any(np.isfinite(ends))
    return {
        "scale": () if scale == (1.0,) else scale,
        "offset": tuple(x * part for x in _numbers(dataset, "add_offset")),
        "nodata": fill,
        "also_nodata": other,
        "valid_range": ends if limited else None,
    }


def _stored_dtype(dataset: Any) -> np.dtype:
    """Return the type of an array; NetCDF marks integers without a sign by an attribute."""
    mark = dataset.attrs.get("_Unsigned", b"")
    mark = mark.decode() if isinstance(mark, bytes) else str(mark)
    dtype = dataset.dtype
    if mark.lower() == "true" and dtype.kind == "i":
        return np.dtype(f"u{dtype.itemsize}").newbyteorder(dtype.byteorder)
    return dtype


def _axes_of_scales(dataset: Any) -> str:
    """Return axes by the names of NetCDF's dimensions; empty if none of three counts bands."""
    if dataset.ndim != 3 or "DIMENSION_LIST" not in dataset.attrs:
        return ""
    names = [" ".join([d.label, *(scale.name for scale in d.values())]) for d in dataset.dims]
    spectral = [i for i, x in enumerate(names) if re.search("band|wavelength|spectr", x.lower())]
    if len(spectral) != 1:
        return ""
    rest = iter("HW")
    return "".join("S" if i == spectral[0] else next(rest) for i in range(3))


def _prisma(dataset: Any) -> dict[str, Any]:
    """Return the facts of a cube of PRISMA's HDF-EOS5 files; empty for other arrays.

    Cubes are [H, S, W]; the file's attributes hold band centres, 0 for bands not in use, and the
    range of reflectance that 0 to 65535 stand for. Source: ASI, PRISMA Products Specification.
    """
    match, about = re.search(r"/(VNIR|SWIR)_Cube$", dataset.name), dataset.file.attrs
    name = match[1].capitalize() if match else ""
    if f"List_Cw_{name}" not in about or dataset.ndim != 3:
        return {}
    nm = np.ravel(about[f"List_Cw_{name}"]).astype(np.float64)
    low, high = (about.get(f"L2Scale{name}{end}") for end in ("Min", "Max"))
    known = low is not None and high is not None
    return {
        "shape": dataset.shape,
        "dtype": dataset.dtype,
        "axes": "HSW",
        "scale": ((float(high) - float(low)) / 65535,) if known else (),
        "offset": (float(low),) if known else (),
        "wavelengths_nm": nm,
        "wavelengths_from": f"List_Cw_{name}",
        "bad_bands": tuple(np.flatnonzero(nm <= 0).tolist()),
    }


def _numbers(dataset: Any, attribute: str) -> tuple[float, ...]:
    """Return an attribute of the CF conventions; empty if it is missing or no number."""
    value = np.ravel(dataset.attrs.get(attribute, ()))
    return tuple(value.astype(float).tolist()) if value.dtype.kind in "uif" else ()


def _full_scale(dataset: Any) -> float | None:
    """Return the attribute `full_scale`, or the N of `scale`, `divide by N`, of array or file."""
    for attributes in (dataset.attrs, dataset.file.attrs):
        if number := re.match(r"divide by ([\d.]+)", str(attributes.get("scale", ""))):
            return float(number[1])
        if "full_scale" in attributes:
            return float(attributes["full_scale"])
    return None


def _load(path: Path, key: str, name: str, turned: bool, index: Index) -> np.ndarray:
    """Read a window of a dataset after checking that the dataset's size is plausible."""
    with _opened(path) as file:
        dataset = file[name]
        if dataset.dtype.kind not in "uif" or not dataset.shape:
            raise UserError(
                f"{path}: found {key} of type {dataset.dtype} and shape {dataset.shape}, expected "
                "an array of real numbers; write it anew"
            )
        stored = path.stat().st_size if dataset.id.get_storage_size() else 0
        check_size(path, key, dataset.shape, dataset.dtype.itemsize, stored)
        check_size(path, f"{key}'s chunks", dataset.chunks or (1,), 1, stored)
        if not turned:
            return dataset[index].astype(_stored_dtype(dataset), copy=False)
        every = (slice(None),) * (dataset.ndim - len(index))
        return dataset[(index + every)[::-1]].T
