"""What `doctor` runs on every node, with Python's own library first: a node may lack all else.

Sent by value, so nothing here may refer to a name of another module at the top.
"""

import os
from pathlib import Path
from typing import Any


def look(
    lab: str, token: str, uri: str, packages: tuple[str, ...], ports: tuple[int, ...]
) -> dict[str, Any]:
    """Return what a node is: versions, code, lab folder, MLflow, clock, disk, GPUs, security."""
    import platform
    import shutil
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "missing"

    try:
        from mhiflab.cluster.code import code_hash

        code = code_hash()
    except Exception as error:
        code = f"{type(error).__name__}: {error}"
    folder = Path(lab)
    seen = folder / f".doctor-{token}"
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return {
        "host": platform.node(),
        "versions": {"python": platform.python_version(), **{n: installed(n) for n in packages}},
        "code": code,
        "shared": seen.is_file() and seen.read_text(encoding="utf-8") == token,
        "writable": os.access(existing, os.W_OK),
        "free_gib": shutil.disk_usage(existing).free / 2**30,
        "mlflow": mlflow_answer(uri),
        "gpus": gpus(),
        "ports": listening(ports),
    }


def mlflow_answer(uri: str) -> str:
    """Return why a tracking server does not answer from here; empty where it does."""
    import urllib.request

    if not uri.startswith("http"):
        return ""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5) as answer:  # noqa: S310
            return "" if answer.status == 200 else f"status {answer.status}"
    except OSError as error:
        return str(error)


def gpus() -> list[dict[str, Any]]:
    """Return name, memory and driver of every GPU, and whether a small product is right."""
    import subprocess

    try:
        import torch
    except ImportError:
        return []
    found = []
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", f"--id={i}"]
        try:
            driver = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout
        except (OSError, subprocess.TimeoutExpired):
            driver = "unknown"
        try:
            ones = torch.ones(64, 64, device=f"cuda:{i}")
            works = bool(((ones @ ones) == 64).all())
        except RuntimeError as error:
            works = str(error).splitlines()[0]  # type: ignore[assignment]
        gib = about.total_memory / 2**30
        found.append({"name": about.name, "gib": gib, "driver": driver.strip(), "works": works})
    return found


def listening(ports: tuple[int, ...]) -> dict[int, list[str]]:
    """Return the addresses on which this node listens, for some ports (Linux; else empty)."""
    import ipaddress

    found: dict[int, list[str]] = {}
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        for line in path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []:
            _, local, _, state = line.split()[:4]
            host, port = local.split(":")
            if state == "0A" and int(port, 16) in ports:
                raw = bytes.fromhex(host)
                # Words of four bytes, each in the machine's order.
                parts = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
                address = ipaddress.ip_address(b"".join(parts))
                found.setdefault(int(port, 16), []).append(str(address))
    return found


def fingerprint(data: Any) -> str:
    """Return the fingerprint of a study's data as this node sees it, or why it sees none."""
    try:
        from feinfn.data.source import survey

        return survey(data).fingerprint
    except Exception as error:
        return f"{type(error).__name__}: {error}"
