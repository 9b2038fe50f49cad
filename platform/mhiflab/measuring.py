"""Seconds and peak memory of one piece of work."""

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Effort:
    """What a piece of work took, filled in when it ends."""

    seconds: float = 0.0
    memory_mib: float | None = None
    """Peak above what was held before; None where the system does not tell."""


@contextmanager
def measured_effort(device: torch.device) -> Iterator[Effort]:
    """Measure what happens inside; on a GPU memory is the GPU's, else the process's."""
    found = Effort()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if cuda else _restart_peak()
    started = time.perf_counter()
    yield found
    if cuda:
        torch.cuda.synchronize(device)
    found.seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(device) if cuda else _told("VmHWM:")
    if before is not None and peak is not None:
        found.memory_mib = (peak - before) / 2**20


def _restart_peak() -> int | None:
    """Let Linux forget this process's peak, and return what it holds now, in bytes."""
    with suppress(OSError, AttributeError):
        # What training left free inside the process would hide what is asked for next.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _told("VmRSS:")
    return None


def _told(field: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None
