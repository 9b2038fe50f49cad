"""Functions that `doctor` runs on every node, which may lack every package but Python's own.

They are sent by value, so this module imports other packages only inside functions.
"""

import os
from pathlib import Path
from typing import Any


def node_facts(
    lab: str, token: str, uri: str, packages: tuple[str, ...], ports: tuple[int, ...]
) -> dict[str, Any]:
    """Return a node's facts: versions, code, lab folder, disk, MLflow, GPUs and open ports."""
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
    mark = folder / f".doctor-{token}"
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return {
        "versions": {"python": platform.python_version(), **{n: installed(n) for n in packages}},
        "code": code,
        "shared": mark.is_file() and mark.read_text(encoding="utf-8") == token,
        "writable": os.access(existing, os.W_OK),
        "free_gib": shutil.disk_usage(existing).free / 2**30,
        "mlflow": mlflow_answer(uri),
        "gpus": gpus(),
        "ports": listening(ports),
    }


def mlflow_answer(uri: str) -> str:
    """Return why a tracking server does not answer this node; empty if it does."""
    import urllib.request

    if not uri.startswith("http"):
        return ""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5) as answer:  # noqa: S310
            return "" if answer.status == 200 else f"status {answer.status}"
    except OSError as error:
        return str(error)


def gpus() -> list[dict[str, Any]]:
    """Return every GPU's name, memory in GiB and driver, and `works`: True, or an error's text."""
    import subprocess

    try:
        import torch
    except ImportError:
        return []
    facts = []
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
        facts.append({"name": about.name, "gib": gib, "driver": driver.strip(), "works": works})
    return facts


def listening(ports: tuple[int, ...]) -> dict[int, list[str]]:
    """Return the addresses on which this node listens, by port; empty unless on Linux.

    Read by hand, because a node that is examined may lack psutil.
    """
    import ipaddress

    addresses: dict[int, list[str]] = {}
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        for line in path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []:
            _, local, _, state = line.split()[:4]
            host, port = local.split(":")
            if state == "0A" and int(port, 16) in ports:
                raw = bytes.fromhex(host)
                # Words of four bytes, each in the machine's byte order.
                words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
                address = ipaddress.ip_address(b"".join(words))
                addresses.setdefault(int(port, 16), []).append(str(address))
    return addresses


def fingerprint(data: Any) -> str:
    """Return the fingerprint of a study's data on this node, or the text of an error."""
    try:
        from feinfn.data.source import survey

        return survey(data).fingerprint
    except Exception as error:
        return f"{type(error).__name__}: {error}"
