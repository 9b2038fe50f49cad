"""Checks: the machine, and the tests of numbers on its device."""

import os
import platform
import shutil
import subprocess
from collections import Counter
from typing import Any

from experiments.gpu.part import NoDevice, Task, Unfinished

FEINFN = "tests/feinfn/"
TESTS = (
    "methods/feinfn/test_model.py",
    "methods/feinfn/test_plain.py",
    "metrics/test_metrics.py",
    "metrics/test_metrics_conventions.py",
    "metrics/test_metrics_edges.py",
    "methods/feinfn/test_variants.py",
    "methods/feinfn/test_strips.py",
    "methods/test_learned.py",
    "protocols/test_operators.py",
    "test_evaluation.py",
    "training/test_accumulate.py",
    "training/test_changes.py",
    "training/test_train.py",
    "methods/feinfn/test_compile.py",
    "training/test_resume.py",
)
"""Tests that take their device from FEINFN_DEVICE, goldens first."""


def machine(task: Task) -> str:
    """Record the machine; raise `NoDevice` if it has not the device."""
    import torch

    if task.on_gpu and not torch.cuda.is_available():
        raise NoDevice
    facts = {
        "device": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "TF32 by default": f"products {torch.backends.cuda.matmul.allow_tf32}, convolutions "
        f"{torch.backends.cudnn.allow_tf32}",
    }
    if task.on_gpu:
        properties = torch.cuda.get_device_properties(task.device)
        facts["device"] = properties.name
        facts["memory"] = f"{properties.total_memory / 2**30:.1f} GiB"
        facts["driver"] = driver()
        # It must answer.
        assert torch.ones(8, device=task.device).sum().item() == 8
    for name, value in facts.items():
        task.add(name, value=str(value))
    return f"{facts['device']}, torch {torch.__version__}"


def driver() -> str:
    """Return the version of NVIDIA's driver."""
    if shutil.which("nvidia-smi") is None:
        return "unknown: no nvidia-smi"
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return done.stdout.strip() or "unknown"


class Plugin:
    """Pytest plugin that records every test and stops when the time is over."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave out what did not fail before."""
        rows = self.task.rows()
        done = {name for name, row in rows.items() if row["outcome"] != "failed"}
        items[:] = [item for item in items if item.nodeid.removeprefix(FEINFN) not in done]

    def pytest_runtest_protocol(self, item: Any) -> None:
        """End the session when the time is over; the test at hand still runs."""
        if self.task.left() < 0:
            item.session.shouldstop = "its time was over"

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record a test after its body, or where it ended."""
        if report.outcome == "passed" and report.when != "call":
            return
        facts: dict[str, Any] = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
        if report.outcome == "failed":
            facts["error"] = report.longreprtext[-600:]
        elif report.outcome == "skipped":
            facts["error"] = str(report.longrepr[-1])
        self.task.add(report.nodeid.removeprefix(FEINFN), **facts)


def tests(task: Task) -> str:
    """Run the tests of numbers on the device."""
    os.environ["FEINFN_DEVICE"] = task.device_name
    import pytest

    words = ["-q", "--tb=short", "-p", "no:cacheprovider", *(FEINFN + name for name in TESTS)]
    plugin = Plugin(task)
    status = pytest.main(words, plugins=[plugin])
    counts = Counter(row["outcome"] for row in task.rows().values())
    summary = ", ".join(f"{n} {outcome}" for outcome, n in counts.items())
    if counts["failed"] or status not in (0, 1, 2, 5):
        raise AssertionError(f"{summary}; pytest ended with {status}")
    if status == pytest.ExitCode.INTERRUPTED:
        raise Unfinished(summary)
    return summary
