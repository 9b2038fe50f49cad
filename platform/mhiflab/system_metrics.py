"""How busy the machine was: MLflow's own monitors, read once an epoch."""

from contextlib import suppress
from typing import Any

import torch
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor


class SystemMetrics:
    """Reads CPU and memory, and every GPU where the training uses one."""

    def __init__(self, device: torch.device) -> None:
        self._monitors: list[Any] = [CPUMonitor()]
        if device.type == "cuda":
            # Without nvidia-ml-py, or where a container hides NVML, the others still tell.
            with suppress(ImportError, RuntimeError):
                self._monitors.append(GPUMonitor())
        self.sample()

    def sample(self) -> dict[str, float]:
        """Return the values since the last call, by MLflow's names: `system/...`."""
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return {f"system/{name}": value for name, value in found.items()}
