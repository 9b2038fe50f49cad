"""Scene stores: lossless, resumable, atomic; and what goes wrong while they are made or read."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from feinfn.data.prepare import prepare
from feinfn.data.scene import Scene, make_scene, read_scene
from feinfn.data.splits import Split
from feinfn.data.store import is_store, manifest, read_stored, set_fingerprint
from feinfn.errors import UserError

RANDOM = np.random.default_rng(0)
NM = np.linspace(400, 700, 5)
COUNTS = RANDOM.integers(0, 65536, (5, 70, 90)).astype(np.uint16)
CUBES = {
    "uint8": COUNTS.astype(np.uint8),
    "uint16": COUNTS,
    "sixteenth bits": COUNTS.astype(np.float32) / np.float32(65535),
    "free floats": RANDOM.random((5, 70, 90)).astype(np.float32),
    "negative zero": np.full((5, 70, 90), -0.0, np.float32),
}


def test_whole_numbers_read_as_floats_are_stored_as_integers(tmp_path):
    counts = (COUNTS % 10001).astype(np.float32)
    scene = make_scene("a", counts, None, "x", full_scale=10000)
    (tmp_path / "a.bin").touch()
    prepare({"a": tmp_path / "a.bin"}, tmp_path / "out.h5", read=lambda name, path: scene)
    stored = read_stored(tmp_path / "out.h5", "a")
    assert (stored.raw_SHW.dtype, stored.full_scale) == (np.uint16, 10000)
    assert stored.pixel_hash() == scene.pixel_hash()


def sources(folder: Path, cubes: dict[str, np.ndarray]) -> dict[str, Path]:
    for name, cube in cubes.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["GT"], file["wavelength_nm"] = cube, NM
            file.attrs["scale"] = "divide by 65535 for [0,1]" if cube.dtype == np.uint16 else ""
    return {name: folder / f"{name}.h5" for name in cubes}


class Reader:
    """The plain reader, which counts what it reads."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str, path: Path) -> Scene:
        self.names.append(name)
        return replace(read_scene(path), name=name)


@pytest.fixture
def four(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "in").mkdir()
    return sources(tmp_path / "in", {name: COUNTS + i for i, name in enumerate("abcd")})


def test_every_number_type_comes_back_bit_for_bit(tmp_path):
    scenes = sources(tmp_path, CUBES)
    out = tmp_path / "out.h5"
    told = prepare(scenes, out, read=Reader())
    kinds = dict(zip(CUBES, ("uint8", "uint16", "uint16", "float32", "float32"), strict=True))
    for name, path in scenes.items():
        original, stored = read_scene(path), read_stored(out, name)
        assert stored.raw_SHW.dtype == kinds[name]
        assert stored.cube().tobytes() == original.cube().tobytes()
        assert stored.pixel_hash() == original.pixel_hash() == told["scenes"][name]["pixel_hash"]
        assert stored.bit_depth == original.bit_depth
        assert told["scenes"][name]["storage"].startswith(kinds[name])
    hashes = {name: read_scene(path).pixel_hash() for name, path in scenes.items()}
    assert told["fingerprint"] == set_fingerprint(hashes)


def test_facts_of_a_measured_pair_come_back(tmp_path):
    msi = RANDOM.random((2, 140, 180)).astype(np.float32)
    scene = replace(make_scene("a", CUBES["free floats"], None, "x", notes=("odd",)), msi_MHW=msi)
    (tmp_path / "a.bin").write_bytes(b"pixels")
    prepare({"a": tmp_path / "a.bin"}, tmp_path / "out.h5", read=lambda name, path: scene)
    stored = read_stored(tmp_path / "out.h5", "a")
    assert stored.notes == ("odd",)
    assert stored.wavelengths_nm is None
    np.testing.assert_array_equal(stored.msi_MHW, msi)
    window = read_stored(tmp_path / "out.h5", "a", ((3, 66), (0, 5)))
    np.testing.assert_array_equal(window.raw_SHW, scene.raw_SHW[:, 3:66, 0:5])
    np.testing.assert_array_equal(window.msi_MHW, msi[:, 6:132, 0:10])


@pytest.mark.parametrize("window", [((0, 71), (0, 5)), ((5, 5), (0, 5)), ((0, 5), (-1, 5))])
def test_windows_outside_are_refused(window, four, tmp_path):
    prepare(four, tmp_path / "out.h5", read=Reader())
    with pytest.raises(UserError, match=r"rows within \[0, 70\) and columns within \[0, 90\)"):
        read_stored(tmp_path / "out.h5", "a", window)


def test_manifest_names_every_source_file_and_the_split(four, tmp_path):
    parts = Split(name="own", source="x", train=("a", "b"), validation=("c",), test=("d",))
    out = tmp_path / "out.h5"
    four["e"] = four["a"]
    prepare(four, out, read=Reader(), set_name="cave", split=parts, settings={"full_scale": None})
    told = manifest(out)
    assert told["set"] == "cave"
    assert told["split"] == {
        "name": "own",
        "train": ["a", "b"],
        "validation": ["c"],
        "test": ["d"],
    }
    assert sorted(told["scenes"]) == ["a", "b", "c", "d"], "a scene of no part is left out"
    (source,) = told["scenes"]["b"]["sources"]
    assert (source["name"], source["size"]) == ("b.h5", four["b"].stat().st_size)
    assert len(source["sha256"]) == 64
    assert str(tmp_path) not in str(told), "a store can be given away"


def test_equal_calls_make_equal_bytes_and_a_finished_store_is_left_alone(four, tmp_path):
    a, b, reader = tmp_path / "a.h5", tmp_path / "b.h5", Reader()
    assert prepare(four, a, read=reader) == prepare(four, b, read=reader)
    assert a.read_bytes() == b.read_bytes()
    before, reader.names = a.stat().st_mtime_ns, []
    prepare(four, a, read=reader)
    assert (reader.names, a.stat().st_mtime_ns) == ([], before)
    prepare(four, a, read=reader, settings={"full_scale": 1})
    assert reader.names == list("abcd"), "other options make another store"


def stopped(four: dict[str, Path], out: Path, at: str, error: BaseException) -> None:
    def read(name: str, path: Path) -> Scene:
        if name == at:
            raise error
        return read_scene(path)

    with pytest.raises(UserError, match=r"2 of 4 finished scenes are kept, and the same command"):
        prepare(four, out, read=read)
    assert not out.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("bad file")])
def test_stopped_run_continues_with_what_is_whole_and_unchanged(error, four, tmp_path):
    out, staging, reader = tmp_path / "out.h5", tmp_path / "out.h5.partial", Reader()
    stopped(four, out, "c", error)
    prepare(four, out, read=reader)
    assert reader.names == ["c", "d"]
    assert not staging.exists()
    out.unlink()

    stopped(four, out, "c", error)
    data = (staging / "a.h5").read_bytes()
    (staging / "a.h5").write_bytes(data[:-1] + b"!")
    sources(tmp_path / "in", {"b": COUNTS // 2})
    reader.names = []
    prepare(four, out, read=reader)
    assert reader.names == ["a", "b", "c", "d"], "one damaged, one with a changed source"
    np.testing.assert_array_equal(read_stored(out, "b").raw_SHW, COUNTS // 2)


def test_staged_scenes_of_other_options_are_not_taken(four, tmp_path):
    out, reader = tmp_path / "out.h5", Reader()
    stopped(four, out, "c", KeyboardInterrupt())
    prepare(four, out, read=reader, settings={"full_scale": 4095})
    assert reader.names == list("abcd")


def test_killed_run_continues(four, tmp_path):
    out, reader = tmp_path / "out.h5", Reader()
    code = """
import sys, time
from pathlib import Path
from feinfn.data.prepare import prepare
from feinfn.data.scene import read_scene
def read(name, path):
    if name == 'c':
        print('reading c', flush=True)
        time.sleep(60)
    return read_scene(path)
folder, out = map(Path, sys.argv[1:])
prepare({p.stem: p for p in folder.iterdir()}, out, read=read)
"""
    words = [sys.executable, "-c", code, tmp_path / "in", out]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading c\n"
        child.send_signal(signal.SIGKILL)
    assert not out.exists()
    prepare(four, out, read=reader)
    assert reader.names == ["c", "d"]
    whole = tmp_path / "whole.h5"
    prepare(four, whole, read=reader)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.h5", "whole.h5"]


def test_kill_at_any_moment_leaves_no_half_store(four, tmp_path):
    out = tmp_path / "out.h5"
    code = """
import sys
from pathlib import Path
from feinfn.data.prepare import prepare
from feinfn.data.scene import read_scene
folder, out = map(Path, sys.argv[1:])
print('ready', flush=True)
prepare({p.stem: p for p in folder.iterdir()}, out, read=lambda name, path: read_scene(path))
"""
    for wait_s in (0.0, 0.03, 0.1):
        words = [sys.executable, "-c", code, tmp_path / "in", out]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(wait_s)
            child.kill()
        if out.exists():
            assert manifest(out)["fingerprint"]
            out.unlink()
    prepare(four, out, read=Reader())
    for name in four:
        assert read_stored(out, name).pixel_hash() == read_scene(four[name]).pixel_hash()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.h5"]


@pytest.fixture
def small(tmp_path: Path):
    """A real file system of 180 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=180k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_keeps_finished_scenes_and_continues(four, small):
    message = r"no space left on the disk.*; 2 of 4 finished scenes are kept"
    with pytest.raises(UserError, match=message):
        prepare(four, small / "out.h5", read=Reader())
    assert sorted(p.name for p in (small / "out.h5.partial").iterdir()) == [
        *("a.h5", "a.json", "b.h5", "b.json")
    ]
    subprocess.run(["mount", "-o", "remount,size=2m", str(small)], check=True)
    reader = Reader()
    prepare(four, small / "out.h5", read=reader)
    assert reader.names == ["c", "d"]
    assert [p.name for p in small.iterdir()] == ["out.h5"]


def test_full_disk_while_the_store_is_assembled(four, small):
    # Two scenes fit beside each other, but not once more.
    two = {name: four[name] for name in "ab"}
    with pytest.raises(UserError, match=r"no space left on the disk.*; 2 of 2 finished scenes"):
        prepare(two, small / "out.h5", read=Reader())
    assert sorted(p.name for p in (small / "out.h5.partial").iterdir()) == [
        *("a.h5", "a.json", "b.h5", "b.json")
    ]


def test_places_that_cannot_be_written_are_named(four, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        prepare(four, tmp_path / "file" / "out.h5", read=Reader())
    with pytest.raises(UserError, match="found another file there"):
        prepare(four, four["a"], read=Reader())


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may do all")
def test_folder_without_permission(four, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    code = """
import sys
from pathlib import Path
from feinfn.data.prepare import prepare
from feinfn.data.scene import read_scene
scene, out = map(Path, sys.argv[1:])
prepare({'a': scene}, out, read=lambda name, path: read_scene(path))
"""
    # Root may write anywhere unless it gives that right away.
    drop = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    words = [sys.executable, "-c", code, four["a"], locked / "out.h5"]
    done = subprocess.run(
        [*(drop if os.geteuid() == 0 else []), *map(str, words)], capture_output=True, text=True
    )
    assert "UserError" in done.stderr.splitlines()[-1], done.stderr
    assert "Permission denied" in done.stderr.splitlines()[-1]
    assert not list(locked.iterdir())


def test_missing_scenes_of_a_split_are_named(four, tmp_path):
    parts = Split(name="own", source="x", train=("a", "z"), validation=(), test=("y",))
    with pytest.raises(UserError, match="split own: found no scene y, z among the 4"):
        prepare(four, tmp_path / "out.h5", read=Reader(), split=parts)
    with pytest.raises(UserError, match="found no scenes to prepare"):
        prepare({}, tmp_path / "out.h5", read=Reader())
    with pytest.raises(UserError, match=r"scene name 'x/y'"):
        prepare({"x/y": four["a"]}, tmp_path / "out.h5", read=Reader())


def test_truncated_damaged_and_foreign_files_are_named(four, tmp_path):
    out = tmp_path / "out.h5"
    prepare(four, out, read=Reader())
    with pytest.raises(UserError, match="no scene 'z'; it holds a, b, c, d"):
        read_stored(out, "z")
    with pytest.raises(UserError, match=r"found an HDF5 file with keys \['GT', 'wavelength_nm'\]"):
        manifest(four["a"])
    with pytest.raises(UserError, match="no such file"):
        manifest(tmp_path / "absent.h5")
    data = out.read_bytes()
    out.write_bytes(data[: len(data) // 2])
    assert not is_store(out)
    with pytest.raises(UserError, match=r"cannot be read as a scene store .*truncated or of"):
        manifest(out)


def test_no_changed_byte_gives_other_pixels(tmp_path):
    (tmp_path / "a.bin").touch()
    scene = make_scene("a", COUNTS[:, :20, :20], NM, "x", full_scale=65535)
    out, hurt = tmp_path / "out.h5", tmp_path / "hurt.h5"
    prepare({"a": tmp_path / "a.bin"}, out, read=lambda name, path: scene)
    data, random, found = out.read_bytes(), np.random.default_rng(1), 0
    for where in random.integers(0, len(data), 300):
        hurt.write_bytes(data[:where] + bytes([data[where] ^ 0x5A]) + data[where + 1 :])
        try:
            assert set(manifest(hurt)["scenes"]) == {"a"}
            stored = read_stored(hurt, "a")
        except UserError as error:
            found += "cannot be read as a scene store" in str(error)
        else:
            assert (stored.pixel_hash(), stored.notes) == (scene.pixel_hash(), scene.notes)
    assert found > 100
