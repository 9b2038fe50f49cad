"""Overhead of the laboratory beside training: of trials, and of commands on a large record.

    python experiments/bench/overhead.py              # everything, about 15 minutes on two cores
    python experiments/bench/overhead.py --trials 20  # a shorter long study

Trials train for about a second. Their own training time has a column of its own; the rest is Ray's
processes, imports, evaluation and the record. ray_floor.py measures Ray alone. Memory is the sum of
the unique set sizes of all processes.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import yaml
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag

from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan
from mhiflab.record import tag
from mhiflab.record.artifacts import IMAGES_FILE
from mhiflab.record.store import open_store, tracking_uri, trial_runs
from mhiflab.study.identity import spec_hash

RAY_FLOOR = Path(__file__).parent / "ray_floor.py"

STUDY_TEXT: dict = {
    "title": "overhead",
    "base": {
        "model": {
            "feat_dim": 4,
            "guide_dim": 4,
            "spatial_blocks": 1,
            "spectral_blocks": 1,
            "mlp_widths": [8],
            "decoder_width": 8,
            "decoder_layers": 1,
        },
        "train": {"epochs": 2, "batch_size": 2, "patch_px": 32, "stride_px": 64, "lr": 1e-3},
    },
}


def write(folder: Path, name: str, workers: int, seeds: int) -> Path:
    """Write a study of equal small trials."""
    base = {**STUDY_TEXT["base"], "resources": {"workers": workers}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**STUDY_TEXT, "base": base, "seeds": list(range(seeds))}))
    return path


class Memory(threading.Thread):
    """A thread that samples the unique memory of a process and all its children."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.count = psutil.Process(pid), 0, 0

    def run(self) -> None:
        while self.process.is_running():
            total, count = 0, 0
            try:
                for one in [self.process, *self.process.children(recursive=True)]:
                    total += one.memory_full_info().uss
                    count += 1
            except psutil.Error:
                continue
            if total > self.peak:
                self.peak, self.count = total, count
            time.sleep(0.5)


def run_watched(words: list[str]) -> dict[str, float]:
    """Run a program; return its seconds, and the memory and number of all its processes."""
    started = time.perf_counter()
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    memory = Memory(driver.pid)
    memory.start()
    text = driver.communicate()[0]
    wall = time.perf_counter() - started
    assert driver.returncode == 0, text
    return {"wall": wall, "peak_gib": memory.peak / 2**30, "processes": memory.count}


def measure(folder: Path, workers: int, seeds: int) -> dict[str, float]:
    """Run a study; return its seconds, memory and number of processes."""
    name = f"w{workers}n{seeds}"
    study, lab = write(folder, name, workers, seeds), folder / f"lab-{name}"
    figures = run_watched([sys.executable, "-m", "mhiflab", "run", str(study), "--lab", str(lab)])
    runs = trial_runs(open_store(Lab(lab), tracking_uri(Lab(lab)))).values()
    return {**figures, "trained": sum(run.data.metrics["train_seconds"] for run in runs)}


def time_commands(folder: Path, count: int, scores: Path) -> dict[str, float]:
    """Return the seconds of commands by name for a study whose trials are all recorded.

    Every run holds the scores of a real one.
    """
    study, lab = write(folder, "many", 0, count), Lab(folder / "lab-many")
    plan = read_plan(study)
    store = open_store(lab, tracking_uri(lab))
    client: MlflowClient = store.client
    for entry in plan.entries:
        spec, survey = entry.trial.spec, entry.survey
        assert survey is not None
        tags = {
            tag.KIND: "trial",
            tag.KEY: entry.key,
            tag.STUDY: plan.name,
            tag.CASE: entry.trial.case,
        }
        tags |= {
            tag.SEED: str(spec.seed),
            tag.FINGERPRINT: survey.fingerprint,
            tag.SPEC_HASH: spec_hash(spec),
        }
        run = client.create_run(store.experiment_id, tags=tags)
        params = [Param(f"p{i}", str(i)) for i in range(60)]
        client.log_batch(run.info.run_id, params=params, tags=[RunTag("mhiflab.x", "y")])
        client.log_artifact(run.info.run_id, str(scores))
        client.set_terminated(run.info.run_id, "FINISHED")
    seconds = {}
    for command, options in (("plan", ()), ("status", ()), ("table", ("--name", "table"))):
        words = [sys.executable, "-m", "mhiflab", command, str(study), "--lab", str(lab.root)]
        started = time.perf_counter()
        done = subprocess.run([*words, *options], capture_output=True, text=True, check=True)
        seconds[command] = time.perf_counter() - started
        expected = "overhead" if command == "table" else f"{count} done"
        assert expected in done.stdout, done.stdout[-500:]
    return seconds


def print_row(label: str, figures: dict[str, float]) -> None:
    """Print one row of the table as soon as it is measured."""
    trained = f"{figures['trained']:11.1f}" if "trained" in figures else f"{'-':>11}"
    print(
        f"{label:34}{figures['wall']:8.1f}{trained}{figures['peak_gib']:10.2f}"
        f"{figures['processes']:11.0f}",
        flush=True,
    )


def main() -> None:
    """Measure all cases and print them as a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200, help="trials of the long study")
    parser.add_argument("--recorded", type=int, default=1000, help="runs of the recorded study")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mhiflab-overhead-") as name:
        folder = Path(name)
        print(f"{'':34}{'wall s':>8}{'trained s':>11}{'peak GiB':>10}{'processes':>11}")
        for workers in (0, 1):
            words = [sys.executable, str(RAY_FLOOR), str(workers), name]
            what = "Train worker" if workers else "Tune function"
            print_row(f"Ray's floor, empty {what}", run_watched(words))
        rows = [("one trial, direct", 0, 1), ("one trial, 1 worker", 1, 1)]
        rows += [("one trial, 2 workers", 2, 1), ("four trials, direct", 0, 4)]
        rows += [(f"{options.trials} trials, direct", 0, options.trials)]
        for label, workers, seeds in rows:
            print_row(label, measure(folder, workers, seeds))
        scores = next((folder / "lab-w0n1").rglob(IMAGES_FILE))
        seconds = time_commands(folder, options.recorded, scores)
        line = ", ".join(f"{command} {took:.1f} s" for command, took in seconds.items())
        print(f"{options.recorded} recorded runs: {line}")


if __name__ == "__main__":
    main()
