"""Where a result comes from: code, lock file, library versions, machine."""

import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from typing import Any

import torch

from mhiflab.paths import checkout, lock_file, submitted_file

LIBRARIES = ("torch", "ray", "mlflow", "numpy", "scipy", "h5py", "optuna", "mhiflab")


def git(*words: str) -> str | None:
    """Return what git prints in the checkout, None where there is neither git nor a checkout."""
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


def git_provenance() -> dict[str, Any]:
    """Return git commit and uncommitted changes, of the submitting checkout inside a job."""
    if submitted_file().is_file():
        return json.loads(submitted_file().read_text(encoding="utf-8"))
    status = git("status", "--porcelain")
    return {
        "git_commit": (git("rev-parse", "HEAD") or "").strip() or None,
        "git_dirty": None if status is None else bool(status),
        "git_diff": git("diff", "HEAD"),
    }


def code_provenance() -> dict[str, Any]:
    """Return git state (None where there is no checkout), lock hash and versions."""
    lock = lock_file()
    return {
        **git_provenance(),
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
