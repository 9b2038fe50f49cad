"""The checkout and the wheel: names, contents, and what may import what."""

import os
import platform
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT


def python(code: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_standard_platform_module_wins_in_the_repository_root():
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert python("import platform; print(platform.system())", ROOT) == platform.system()


SCIENCE = ("torch", "numpy", "scipy", "h5py", "safetensors")


def link_distributions(names: tuple[str, ...], folder: Path) -> None:
    """Link the modules of installed distributions, and of all they need, into a folder."""
    seen, waiting = set(), list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        for text in found.requires or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            (folder / top).symlink_to(found.locate_file(top))


def test_science_runs_where_nothing_else_is_installed(tmp_path):
    packages, here = tmp_path / "packages", tmp_path / "here"
    packages.mkdir()
    here.mkdir()
    link_distributions(SCIENCE, packages)
    (packages / "feinfn").symlink_to(ROOT / "feinfn")
    code = """
import importlib.util, pathlib, pkgutil, feinfn, torch
for module in pkgutil.walk_packages(feinfn.__path__, 'feinfn.'):
    importlib.import_module(module.name)
from feinfn import *
model = ModelConfig(feat_dim=4, guide_dim=4, mlp_widths=(4,), decoder_width=4)
config = TrainConfig(epochs=1, patch_px=32, stride_px=64, batch_size=2)
data, cave = resolve_data(DataConfig()), PROTOCOLS['cave_x4']
def load(names):
    return [load_scene(data, n) for n in names]
cpu = torch.device('cpu')
patches = Patches(load(data.train[:1]), cave, config, cpu)
validation = ScenePairs(load(data.validation), cave, model, cpu)
folder = pathlib.Path('state')
best = train(FeINFN(model), patches, validation, config, 1, folder, lambda r: None)
absent = [n for n in ('ray', 'mlflow', 'pandas', 'pydantic', 'yaml', 'rich', 'mhiflab')
          if importlib.util.find_spec(n) is None]
print(best['epoch'], len(absent))
"""
    # -S: without the site-packages of this environment.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=here,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "7"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", folder, ROOT]
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_both_packages_and_their_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"feinfn", "mhiflab"}
    for needed in (
        "mhiflab/experiments/demo.yaml",
        "mhiflab/render/templates/page.css",
        "mhiflab/render/templates/report.html",
        "mhiflab/render/templates/table.md",
        "mhiflab/render/templates/table.tex",
        "mhiflab/render/templates/viewer.js",
        "mhiflab/requirements.lock",
        "mhiflab/py.typed",
        "feinfn/py.typed",
        "feinfn/data/sample/manifest.json",
        "feinfn/data/sample/README.md",
        "feinfn/data/demo/manifest.json",
        "feinfn/data/demo/README.md",
        "feinfn/protocols/srf/nikon_d700_akhtar_norm.csv",
    ):
        assert needed in names
    assert sum(name.endswith(".h5") for name in names) == 25


def test_unpacked_wheel_works_in_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = """
import mhiflab, feinfn
from mhiflab.paths import checkout, shipped_studies, study_path
from mhiflab.plan.plan import read_plan
print(mhiflab.__file__, checkout(), *shipped_studies(), len(read_plan(study_path('demo')).entries))
"""
    shown = python(code, empty, PYTHONPATH=str(site))
    studies = " ".join(sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml")))
    assert shown == f"{site}/mhiflab/__init__.py None {studies} 10"


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_finds_its_lock(site, tmp_path):
    # A run's provenance says nothing of a lock that is not found, instead of failing.
    code = "from mhiflab.paths import lock_file; print(lock_file())"
    assert python(code, tmp_path, PYTHONPATH=str(site)) == f"{site}/mhiflab/requirements.lock"


def test_command_of_the_wheel_starts_by_its_entry_point(site, tmp_path):
    code = """
import sys
from importlib.metadata import distribution
(command,) = (one for one in distribution('mhiflab').entry_points if one.name == 'mhiflab')
start = command.load()
print(sys.modules[start.__module__].__file__)
sys.argv = ['mhiflab', 'plan', 'demo']
start()
"""
    shown = python(code, tmp_path, PYTHONPATH=str(site))
    assert shown.startswith(f"{site}/mhiflab/")
    assert "10 of 10 trials to execute" in shown


TYPED = """
from feinfn import FeINFN, ModelConfig, evaluate, no_such_name
from mhiflab.paths import checkout
reveal_type((ModelConfig().hsi_bands, evaluate, FeINFN(ModelConfig()).recompute, checkout()))
"""


def test_types_of_the_installed_wheel_are_seen(wheel, tmp_path):
    # Torch is not there, so that nothing but the wheel's own types are read.
    venv.create(tmp_path / "env", symlinks=True)
    (packages,) = tmp_path.glob("env/lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (tmp_path / "program.py").write_text(TYPED)
    words = ["--python-executable", tmp_path / "env" / "bin" / "python", "program.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, words)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "MYPYPATH"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    unknown, revealed, _ = done.stdout.splitlines()
    assert unknown.startswith(
        'program.py:2: error: Module "feinfn" has no attribute "no_such_name"'
    )
    assert "tuple[int, def (" in revealed
    assert "-> dict[str, float], bool, pathlib.Path | None]" in revealed


def test_lock_pins_everything_and_nothing_else_pins_torch():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all("==" in line for line in lines)
    for pin in ("torch==2.13.0", "ray[default,train,tune]==2.60.0", "mlflow==3.17.2"):
        assert pin in lines
    assert "torch==" not in (ROOT / "pyproject.toml").read_text()
