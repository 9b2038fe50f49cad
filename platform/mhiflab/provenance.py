"""Where a result comes from: code, lock file, library versions, machine."""

import hashlib
import platform
import subprocess
from importlib.metadata import version
from typing import Any

import torch

from mhiflab.paths import checkout, lock_file

LIBRARIES = ("torch", "ray", "mlflow", "numpy", "scipy", "h5py", "optuna", "mhiflab")


def _git(*words: str) -> str | None:
    root = checkout()
    if root is None:
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def code_provenance() -> dict[str, Any]:
    """Return git commit, uncommitted changes and lock hash; None where there is no checkout."""
    changes = _git("diff", "HEAD")
    status = _git("status", "--porcelain")
    lock = lock_file()
    return {
        "git_commit": (_git("rev-parse", "HEAD") or "").strip() or None,
        "git_dirty": None if status is None else bool(status),
        "git_diff": changes,
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
    }


def machine_provenance(device: torch.device) -> dict[str, Any]:
    """Return host and device of the process that trains."""
    cuda = device.type == "cuda"
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
    }
