"""A study that runs in processes of its own, watched closely enough to hurt it when chosen."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

EPOCHS = 6
LATE = 3
"""The epoch in or after which faults happen."""
STUDY: dict = {
    "title": "faults",
    "base": {
        "model": {
            # A state of some megabytes, so that saving takes long enough to be hit.
            "feat_dim": 48,
            "guide_dim": 48,
            "spatial_blocks": 2,
            "spectral_blocks": 2,
            "mlp_widths": [64],
            "decoder_width": 16,
            "decoder_layers": 1,
        },
        "train": {"epochs": EPOCHS, "batch_size": 2, "patch_px": 32, "stride_px": 64, "lr": 1e-3},
        "resources": {"workers": 2},
    },
    "cases": {"only": {"label": "only"}},
    "seeds": [1],
}


def wait_until(true: Callable[[], bool], seconds: float, what: str, poll_s: float = 0.001) -> None:
    """Wait for something to come true; fail naming it where it does not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(poll_s)


@dataclass
class Sandbox:
    """A folder with one study, its lab, and the drivers that were started in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workers: int = 2
    lab_folder: Path | None = None
    """Where the lab lies, where not in the folder."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.study = self.folder / "faults.yaml"
        base = {**STUDY["base"], "resources": {"workers": self.workers}}
        self.study.write_text(yaml.safe_dump({**STUDY, "base": base}, sort_keys=False))
        self.lab = self.lab_folder or self.folder / "lab"
        self.seen: dict[int, psutil.Process] = {}

    def start(self, command: str = "run") -> subprocess.Popen:
        """Start a driver in a session of its own; its output goes to the file `log`."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "RAY", "MHIF"))}
        words = [sys.executable, "-m", "mhiflab", command, str(self.study), "--lab", str(self.lab)]
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                words,
                cwd=self.folder,
                env={**clean, "COLUMNS": "200", "OMP_NUM_THREADS": "1", **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self) -> str:
        """Return what all drivers printed."""
        return (self.folder / "log").read_text()

    def finish(self) -> None:
        """Run the study again until it is done; what failed is retried."""
        for command in ("run", "retry", "run"):
            driver = self.start(command)
            if driver.wait(timeout=240) == 0:
                return
        raise AssertionError(f"the study did not finish:\n{self.log()}")

    def journal(self) -> list[dict]:
        """Return the entries of the trial's journal, as far as they are written."""
        for path in self.lab.glob("runs/*/journal.jsonl"):
            try:
                lines = path.read_text().split("\n")[:-1]
            except FileNotFoundError:
                return []
            return [json.loads(line) for line in lines]
        return []

    def reported(self, epoch: int) -> bool:
        """Return whether an epoch's metrics are in the journal."""
        return any(
            step == epoch
            for entry in self.journal()
            for points in entry.get("metrics", {}).values()
            for step, _ in points
        )

    def saving(self) -> bool:
        """Return whether a training state is being written right now."""
        return any(self.lab.glob("checkpoints/*/.state.pt.*.partial"))

    def processes(self, driver: subprocess.Popen) -> list[psutil.Process]:
        """Return the driver's processes, Ray's and ours; all that were ever seen are remembered."""
        try:
            found = psutil.Process(driver.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self.seen |= {process.pid: process for process in found}
        return found

    def rank_0(self, driver: subprocess.Popen) -> psutil.Process | None:
        """Return the process that writes the trial's journal."""
        for process in self.processes(driver):
            try:
                names = [file.path for file in process.open_files()]
            except psutil.Error:
                continue
            if any(name.endswith("journal.jsonl") for name in names):
                return process
        return None

    def peer(self, driver: subprocess.Popen) -> psutil.Process | None:
        """Return a training worker that is not rank 0."""
        first = self.rank_0(driver)
        for process in self.processes(driver):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "RayTrainWorker" in title and process != first:
                return process
        return None

    def left(self, agents: bool = True) -> list[str]:
        """Return what still runs of all processes that were seen.

        Ray's agents, which hold nothing, notice the end of a killed driver after a minute.
        """
        found = []
        for process in self.seen.values():
            try:
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    title = " ".join(process.cmdline())[:80]
                    if agents or "Agent" not in title:
                        found.append(title)
            except psutil.Error:
                continue
        return found

    def table(self) -> dict[str, bytes]:
        """Return the rendered tables."""
        folder = self.lab / "rendered" / "faults"
        return {path.name: path.read_bytes() for path in sorted(folder.glob("table.*"))}
