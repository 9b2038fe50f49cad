"""Scene stores: many scenes in one HDF5 file, lossless, readable window by window.

Layout: `scenes/<name>/hsi` [S, H, W], for measured pairs `scenes/<name>/msi` [M, H, W], and for
scenes with gaps `scenes/<name>/valid` [H, W], 0 for pixels without data. A scene's facts are
attributes of its group; those of the set are the JSON attribute `manifest`.

Legend: S bands, M MSI bands, H rows, W columns.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from feinfn.data.readers.array import read_head, reading
from feinfn.data.scene import Scene, scaled
from feinfn.errors import UserError

LAYOUT = "feinfn scene store 1"
Window = tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns [first, last) of a scene."""

CHUNK_PX = 64
"""Side of an HDF5 chunk; a chunk holds all bands."""


def set_fingerprint(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 over the sorted lines `name:pixel hash` of a set of scenes."""
    lines = "".join(f"{name}:{hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def lossless(scene: Scene) -> tuple[np.ndarray, float, str]:
    """Return (numbers to store, full scale, description of the storage), equal bit for bit.

    Integers stay as they are; floats become uint16 only if that restores every bit.
    """
    raw = scene.raw_SHW
    if np.issubdtype(raw.dtype, np.integer):
        return raw, scene.full_scale, f"{raw.dtype} as read"
    fractions = scene.cube()
    for values, full_scale, why in (
        (raw, scene.full_scale, "every value is a whole number"),
        (fractions * np.float32(65535), 65535.0, "every value is a multiple of 1/65535"),
    ):
        counts = np.rint(values.clip(0, 65535)).astype(np.uint16)
        # Compare bits, because -0.0 equals 0.0.
        if np.array_equal(scaled(counts, full_scale).view(np.uint32), fractions.view(np.uint32)):
            return counts, full_scale, f"uint16, because {why}"
    return raw, scene.full_scale, "float32, because uint16 would lose bits"


def write_scene(group: h5py.Group, scene: Scene) -> None:
    """Write one scene into an empty group."""
    raw, full_scale, storage = lossless(scene)
    for key, x in (("hsi", raw), ("msi", scene.msi_MHW)):
        if x is not None:
            chunk = (x.shape[0], *(min(CHUNK_PX, n) for n in x.shape[1:]))
            group.create_dataset(
                key, data=x, chunks=chunk, compression="gzip", shuffle=True, fletcher32=True
            )
    if scene.valid_HW is not None:
        mask = scene.valid_HW.astype(np.uint8)
        group.create_dataset("valid", data=mask, compression="gzip", fletcher32=True)
    facts = {
        "full_scale": full_scale,
        "storage": storage,
        "bit_depth": scene.bit_depth,
        "wavelengths_nm": scene.wavelengths_nm,
        "notes": json.dumps(scene.notes),
        "pixel_hash": scene.pixel_hash(),
    }
    write_facts(group, facts)


def write_facts(group: h5py.Group, facts: Mapping[str, Any]) -> None:
    """Write attributes, except those that are None.

    Texts get a fixed length: HDF5 keeps no checksum of variable-length texts.
    """
    for key, value in facts.items():
        if value is not None:
            group.attrs[key] = np.bytes_(value.encode()) if isinstance(value, str) else value


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a scene store; raise `UserError` if it is another file or damaged."""
    read_head(path)
    with reading(path, "a scene store"), h5py.File(path, "r") as file:
        if file.attrs.get("layout") != LAYOUT.encode():
            raise UserError(
                f"{path}: found an HDF5 file with keys {sorted(file)}, expected a scene store "
                f"({LAYOUT}); make one with mhiflab data prepare"
            )
        yield file


def is_store(path: Path) -> bool:
    """Return True if a file is a scene store, False if it is damaged or of another kind."""
    try:
        manifest(path)
    except UserError:
        return False
    return True


def manifest(path: Path) -> dict[str, Any]:
    """Return a store's manifest: set, split, and sources and hash of every scene."""
    with _opened(path) as file:
        return json.loads(file.attrs["manifest"])


def read_stored(path: Path, name: str, window: Window | None = None) -> Scene:
    """Read a scene of a store, equal in pixels and facts to the prepared scene, or a window of it.

    A window touches only the chunks it needs. Raises `UserError` for one that is empty or reaches
    outside.
    """
    with _opened(path) as file:
        scenes = file["scenes"]
        if name not in scenes:
            raise UserError(f"{path}: no scene {name!r}; it holds {', '.join(scenes)}")
        group, facts = scenes[name], scenes[name].attrs
        unread = Scene(
            name=name,
            raw_SHW=group["hsi"],
            full_scale=float(facts["full_scale"]),
            wavelengths_nm=facts.get("wavelengths_nm"),
            source=f"{path}:{name}",
            bit_depth=int(facts["bit_depth"]) if "bit_depth" in facts else None,
            msi_MHW=group.get("msi"),
            valid_HW=group.get("valid"),
            notes=tuple(json.loads(facts["notes"])),
        )
        height, width = group["hsi"].shape[1:]
        return unread.window(*(window or ((0, height), (0, width))))
