"""Commands import no more than they need, because imports are most of what one waits for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

CODE = """
import json, sys
from mhiflab.cli.main import app
for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as end:
        assert not end.code, words
print(sorted({"torch", "numpy", "h5py", "mlflow", "ray"} & set(sys.modules)))
"""


def imported(folder: Path, *commands: tuple[str, ...]) -> str:
    """Return the large libraries that commands import, as the last line of their process."""
    words = [sys.executable, "-c", CODE, json.dumps(commands)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_help_needs_no_large_library(tmp_path):
    assert imported(tmp_path, ("--help",), ("run", "--help")) == "[]"


def test_questions_about_recorded_studies_need_neither_torch_nor_ray(recorded):
    study, _ = recorded
    found = imported(
        study.parent, ("plan", study.name), ("status", study.name), ("gc",), ("table", study.name)
    )
    assert found == "['h5py', 'mlflow', 'numpy']"


def test_checks_of_physics_need_no_torch(write_study, tmp_path):
    physics = {
        "label": "a",
        "set": {"model.base": "local", "model.consistency": "both", "resources.memory_mib": None},
    }
    study = write_study(
        cases={"physics": physics, "gsa": {"label": "b", "set": {"model.name": "gsa"}}}
    )
    assert imported(tmp_path, ("plan", study.name)) == "['h5py', 'mlflow', 'numpy']"


def test_inspection_of_files_needs_neither_torch_nor_mlflow(tmp_path):
    np.save(tmp_path / "a.npy", np.full((4, 8, 8), 0.5, np.float32))
    inspect = ("data", "inspect", "a.npy", "--bands-axis", "0")
    assert imported(tmp_path, inspect) == "['h5py', 'numpy']"
