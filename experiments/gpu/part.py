"""Parts of the trial: what each gets, and how it ends; each runs in a process of its own."""

import importlib
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.gpu.record import NO_DEVICE, Record, work_folder

if TYPE_CHECKING:
    import torch

    from feinfn.config import ModelConfig

PLACES = {
    "machine": "checks",
    "tests": "checks",
    "compiled": "steps",
    "speed": "speed",
    "memory": "memory",
    "oom": "memory",
    "ddp": "workers",
    "laboratory": "workers",
    "training": "training",
}
"""Module of each part's function."""


class Skipped(Exception):  # noqa: N818
    """A part cannot run here."""


class NoDevice(Exception):  # noqa: N818
    """This machine has not the device."""


class Unfinished(Exception):  # noqa: N818
    """A part has used its time; the next session continues it."""


@dataclass(frozen=True)
class Task:
    """A part, its device, and the time at which it must end."""

    part: str
    out: Path
    device_name: str
    until: float
    """Seconds since 1970."""
    data: str
    protocol: str

    @property
    def record(self) -> Record:
        """The record, to which it adds."""
        return Record(self.out)

    @property
    def work(self) -> Path:
        """A folder for everything that is no result."""
        return work_folder(self.out)

    @cached_property
    def device(self) -> "torch.device":
        """The device."""
        import torch

        return torch.device(self.device_name)

    @property
    def on_gpu(self) -> bool:
        """True if the device is a GPU, where networks and images have their full size."""
        return self.device.type == "cuda"

    @property
    def config(self) -> "ModelConfig":
        """The released network, on a processor a narrow one."""
        from feinfn.config import ModelConfig

        if self.on_gpu:
            return ModelConfig()
        narrow: dict[str, Any] = {"spatial_blocks": 1, "spectral_blocks": 1, "decoder_width": 16}
        return ModelConfig(feat_dim=8, guide_dim=8, mlp_widths=(16,), **narrow)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - time.time()

    def check_time(self, seconds: float = 0.0) -> None:
        """Raise `Unfinished` unless so many seconds are left."""
        if self.left() < seconds:
            raise Unfinished("its time was over")

    def add(self, name: str, **facts: Any) -> None:
        """Record a row."""
        self.record.add(self.part, name=name, **facts)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows so far, those of earlier sessions too."""
        return self.record.rows(self.part)


def end_with(parent: int) -> None:
    """End this process when its parent is gone, before another session starts."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def main() -> None:
    """Run the part that the command line names, record its end, and end this process."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    part, out, device, until, data, protocol = sys.argv[1:]
    task = Task(part, Path(out), device, float(until), data, protocol)
    began, facts = time.time(), {}
    try:
        module = importlib.import_module(f"experiments.gpu.{PLACES[part]}")
        facts = {"end": "passed", "summary": getattr(module, part)(task)}
    except Skipped as reason:
        facts = {"end": "skipped", "summary": str(reason)}
    except Unfinished as reason:
        facts = {"end": "paused", "summary": str(reason)}
    except NoDevice:
        os._exit(NO_DEVICE)
    except Exception as error:
        # A message may be longer than its traceback.
        summary = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        places = "".join(traceback.format_tb(error.__traceback__)[-8:])
        facts = {"end": "failed", "summary": summary, "error": places}
    task.record.add(part, seconds=round(time.time() - began, 1), **facts)
    sys.stdout.flush()
    sys.stderr.flush()
    # Without waiting for threads, or for a device that no longer answers.
    os._exit(int(facts["end"] == "failed"))
