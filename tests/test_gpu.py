"""The kit of `make gpu` on a processor: it runs, continues on another machine, and needs little."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from places import ROOT, SAMPLE

from experiments.gpu.record import Record, table, work_folder
from experiments.gpu.training import scenes
from feinfn.errors import UserError
from feinfn.training.checkpoint import parse_state, read_state

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"}


def python(*words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def kit(out: Path, *parts: str, device: str = "cpu") -> subprocess.CompletedProcess[str]:
    words = ["-m", "experiments.gpu.run", "--out", str(out), "--device", device]
    return python(*words, "--seconds", "60", "--parts", *parts)


def test_kit_needs_nothing_of_the_laboratory():
    code = """
import importlib, pathlib, sys
for path in pathlib.Path('experiments/gpu').glob('*.py'):
    importlib.import_module(f'experiments.gpu.{path.stem}')
foreign = {'ray', 'mlflow', 'pydantic', 'optuna', 'typer', 'yaml', 'mhiflab'}
print('torch' in sys.modules, *(foreign & set(sys.modules)))
"""
    done = python("-c", code)
    assert done.stdout.split() == ["True"], done.stderr


def test_process_that_watches_over_the_parts_needs_no_torch():
    done = python("-c", "import sys, experiments.gpu.run; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def kept_epochs(out: Path) -> int:
    """Return the epochs of the kept state, which a processor's narrow network has in one piece."""
    path = out / "state.pt.1"
    if not path.exists():
        return 0
    return parse_state(read_state(path), torch.device("cpu"), path)["progress"][0]


def train_and_kill(out: Path) -> list[dict]:
    """Train until one epoch more is kept, and return the validations of this session."""
    before, kept = len(Record(out).facts()), kept_epochs(out)
    words = ["-m", "experiments.gpu.run", "--device", "cpu", "--seconds", "300"]
    words += ["--parts", "training", "--out", str(out)]
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=ENVIRONMENT)
    while kept_epochs(out) <= kept:
        assert process.poll() is None
        time.sleep(0.2)
    process.kill()
    process.wait()
    # The part ends when it finds itself alone.
    time.sleep(1)
    return [x for x in Record(out).facts()[before:] if "val_psnr" in x]


def test_training_that_was_killed_continues_on_another_machine(tmp_path):
    out = tmp_path / "results"
    first = train_and_kill(out)
    # Of a machine that vanished, the folder of results alone remains.
    shutil.rmtree(work_folder(out))
    second = train_and_kill(out)
    numbers = [int(row["name"].split()[1]) for row in first + second]
    start = len(first)
    assert 1 < numbers[start] <= start + 1
    assert numbers == [*range(1, start + 1), *range(numbers[start], numbers[-1] + 1)]
    # Epochs after the last kept state are trained again, to the same numbers.
    values: dict[str, set[float]] = {}
    for row in first + second:
        values.setdefault(row["name"], set()).add(row["val_psnr"])
    assert all(len(found) == 1 for found in values.values())
    files = {path.name: path.stat().st_size for path in out.iterdir()}
    assert set(files) == {"results.jsonl", "results.md", "best.safetensors", "state.pt.1"}
    assert max(files.values()) < 15e6


def test_finished_parts_are_kept_and_failures_told(tmp_path):
    done = kit(tmp_path / "out", "oom")
    assert done.returncode == 0, done.stdout
    assert "2 times out of memory, then in 4 parts" in done.stdout
    assert "| oom | passed |" in (tmp_path / "out" / "results.md").read_text()
    failure = {"end": "failed", "seconds": 1.0, "summary": "it broke"}
    Record(tmp_path / "out").add("ddp", **failure)
    again = kit(tmp_path / "out", "oom")
    assert "oom         passed before: 2 times out of memory" in again.stdout
    assert "ddp failed; see" in again.stdout
    assert again.returncode == 1


def test_scenes_of_a_file_a_folder_and_the_package(monkeypatch):
    found = {
        "demo": scenes("demo"),
        "folder": scenes(str(SAMPLE)),
        "file": scenes(str(SAMPLE / "cloth_ms.h5")),
    }
    counts = {name: (len(train), len(validation)) for name, (train, validation) in found.items()}
    assert min(counts["demo"]) >= 1
    assert counts["folder"] == (6, 1)
    assert counts["file"] == (1, 1)
    (upper,), (lower,) = found["file"]
    assert [one.raw_SHW.shape for one in (upper, lower)] == [(31, 96, 128), (31, 32, 128)]
    monkeypatch.setattr("experiments.gpu.training.LARGEST_MB", 3)
    with pytest.raises(UserError, match=r"DATA: found 6 MB in .*, expected at most 3 MB"):
        scenes(str(SAMPLE))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_machine_without_a_gpu_is_told_and_left_alone(tmp_path):
    done = kit(tmp_path / "out", "oom", device="cuda")
    assert done.returncode == 0
    assert "There is no cuda here" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_half_a_line_is_no_fact_and_harms_no_other(tmp_path):
    record = Record(tmp_path)
    record.add("speed", name="a", ms=1.0)
    with record.path.open("a") as file:
        file.write(json.dumps({"part": "speed"})[:9])
    record.add("speed", name="b", ms=2.0)
    assert list(record.rows("speed")) == ["a", "b"]


def test_long_tables_are_thinned_out_to_the_last_row():
    lines = table({str(i): {"psnr": float(i)} for i in range(1, 1001)})
    assert 30 < len(lines) <= 42
    assert lines[-1] == "| 1000 | 1000 |"
