"""Preparation: write many scenes into one scene store, in steps that survive a crash.

Every finished scene is staged in `<out>.partial/` with a checksum and a record of its sources. The
same call continues there: it does not read a scene again if it is staged whole and from the same
sources.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py

from feinfn import __version__
from feinfn.data.readers.geo import envi_data, envi_header
from feinfn.data.scene import Scene
from feinfn.data.splits import Split
from feinfn.data.store import LAYOUT, is_store, manifest, set_fingerprint, write_facts, write_scene
from feinfn.errors import UserError
from feinfn.files import file_sha256, write_bytes, write_hdf5

Record = dict[str, Any]


def prepare(
    scenes: Mapping[str, Path],
    out: Path,
    *,
    read: Callable[[str, Path], Scene],
    set_name: str = "files",
    split: Split | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Write scenes into one store at `out` and return its manifest.

    Args: scenes, name -> file or folder; read(name, path) makes a scene of it; split, if given,
    selects the scenes, and all of its scenes must exist; settings, every option of `read` that
    changes numbers (JSON); on_progress(name, done, total) is called before the first and after
    every scene. A store already made from the same sources in the same way is left as it is. Raises
    `UserError`; scenes finished until then stay staged.
    """
    names = _names_to_prepare(scenes, split)
    made_by = {
        "layout": LAYOUT,
        "feinfn": __version__,
        "set": set_name,
        "settings": json.loads(json.dumps(settings or {})),
    }
    records = {name: {**made_by, "sources": source_files(scenes[name])} for name in names}
    about = {
        **made_by,
        "h5py": h5py.version.version,
        "hdf5": h5py.version.hdf5_version,
        "split": {"name": split.name, **{k: list(v) for k, v in split.parts().items()}}
        if split
        else None,
    }
    if out.exists() and not is_store(out):
        raise UserError(
            f"{out}: found another file there, expected nothing or a scene store; choose another "
            "name or remove it"
        )
    if out.exists() and _same(existing := manifest(out), about, records):
        return existing
    staging = out.with_name(f"{out.name}.partial")
    done = 0
    try:
        for name in names:
            on_progress(name, done, len(names))
            if not _is_staged(staging / name, records[name]):
                _stage(staging / name, name, records[name], read(name, scenes[name]))
            done += 1
        on_progress("", done, len(names))
        return _assemble(staging, out, about, records)
    except (UserError, KeyboardInterrupt) as error:
        with suppress(OSError):
            staging.rmdir()
        text = str(error) if isinstance(error, UserError) else "stopped"
        kept = f"{done} of {len(names)} finished scenes are kept"
        raise UserError(f"{text}; {kept}, and the same command continues there") from None


def source_files(path: Path) -> list[dict[str, Any]]:
    """Return name, size in bytes and SHA-256 of every file a scene is read from.

    For a folder these are all its files; for ENVI, header and data file; masks and facts that GDAL
    keeps beside a raster count too. Raises `UserError` if one cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    try:
        if path.is_dir():
            paths = {p for p in path.rglob("*") if p.is_file()}
        else:
            header = envi_header(path)
            paths = {header, envi_data(path)} if header else {path}
            # GDAL keeps masks and facts of a raster beside it.
            beside = (Path(f"{p}{end}") for p in paths for end in (".msk", ".aux.xml"))
            paths |= {p for p in beside if p.is_file()}
        return [
            {
                "name": p.relative_to(folder).as_posix(),
                "size": p.stat().st_size,
                "sha256": file_sha256(p),
            }
            for p in sorted(paths)
        ]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _names_to_prepare(scenes: Mapping[str, Path], split: Split | None) -> list[str]:
    """Return the names of the scenes to prepare, sorted; raise `UserError` for invalid ones."""
    names = sorted(sum(split.parts().values(), ()) if split else scenes)
    missing = [name for name in names if name not in scenes]
    if missing and split:
        raise UserError(
            f"split {split.name}: found no scene {', '.join(missing)} among the {len(scenes)} of "
            "the source; add them, or give a JSON split with the scenes you have"
        )
    if not names:
        raise UserError("found no scenes to prepare, expected at least one")
    bad = [name for name in names if "/" in name or name.startswith(".")]
    if bad:
        raise UserError(f"scene name {bad[0]!r}: expected none with '/' or a leading dot")
    return names


def _is_staged(stem: Path, record: Record) -> bool:
    """Return True if a scene is staged whole, made from the same sources in the same way."""
    data, note = Path(f"{stem}.h5"), Path(f"{stem}.json")
    try:
        return json.loads(note.read_text(encoding="utf-8")) == {
            **record,
            "staged": file_sha256(data),
        }
    except (OSError, ValueError):
        return False


def _stage(stem: Path, name: str, record: Record, scene: Scene) -> None:
    """Write one scene and then its note; a scene without a note counts as unfinished."""
    data, note = Path(f"{stem}.h5"), Path(f"{stem}.json")
    write_hdf5(data, lambda file: write_scene(file.create_group(name), scene), checked=True)
    text = json.dumps({**record, "staged": file_sha256(data)})
    write_bytes(note, text.encode())


def _assemble(
    staging: Path, out: Path, about: Record, records: Mapping[str, Record]
) -> dict[str, Any]:
    """Copy the staged scenes into one file without recompressing, move it to `out`, clean up."""
    text: dict[str, str] = {}

    def fill(file: h5py.File) -> None:
        scenes, facts = file.create_group("scenes"), {}
        for name, record in records.items():
            with h5py.File(staging / f"{name}.h5") as staged:
                staged.copy(name, scenes)
            attributes = scenes[name].attrs
            facts[name] = {
                "sources": record["sources"],
                **{key: attributes[key].decode() for key in ("pixel_hash", "storage")},
            }
        fingerprint = set_fingerprint({name: f["pixel_hash"] for name, f in facts.items()})
        text["manifest"] = json.dumps({**about, "fingerprint": fingerprint, "scenes": facts})
        write_facts(file, {"layout": LAYOUT, **text})

    whole = staging / ".whole.h5"
    write_hdf5(whole, fill, checked=True)
    whole.replace(out)
    shutil.rmtree(staging)
    return json.loads(text["manifest"])


def _same(existing: Record, about: Record, records: Mapping[str, Record]) -> bool:
    """Return True if a store's manifest records the same sources, prepared in the same way."""
    sources = {name: facts["sources"] for name, facts in existing["scenes"].items()}
    expected = {name: record["sources"] for name, record in records.items()}
    return sources == expected and existing.items() >= about.items()
