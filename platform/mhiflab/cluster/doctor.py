"""Examine a cluster, or this machine: compare every node with the driver, and name remedies."""

import ipaddress
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from feinfn.data.source import survey
from mhiflab.cluster import probe
from mhiflab.cluster.code import code_hash
from mhiflab.cluster.connect import connected, probe_address, run_on_nodes
from mhiflab.cluster.ray_private import TOKEN_REFUSED, dashboard_port
from mhiflab.paths import Lab, lock_file
from mhiflab.record.store import tracking_uri
from mhiflab.study.expand import expand
from mhiflab.study.read import read_paper, read_study

PACKAGES = ("torch", "ray", "mlflow", "mhiflab")
"""Packages whose versions are compared."""

LEAST_FREE_GIB = 2.0
"""Free disk space that every node needs."""

MOST_CLOCK_S = 1.0
"""Largest difference between clocks with which recorded times and Ray's timeouts are useful."""


@dataclass(frozen=True)
class Finding:
    """Result of one check on one node."""

    node: str
    check: str
    found: str
    fix: str = ""
    """Remedy; empty if the check passed."""


@dataclass(frozen=True)
class Expected:
    """Facts that every node is compared with."""

    versions: Mapping[str, str]
    """Versions on the driver, by package."""
    locked: Mapping[str, str]
    """Versions in requirements.lock, by package."""
    code: str
    """Hash of the driver's code."""
    data: Mapping[str, str]
    """Fingerprints by source."""
    uri: str
    """MLflow's address."""
    dashboard_port: int


def examine(lab: Lab, study: Path | None, say: Callable[[str], None]) -> list[Finding]:
    """Return the findings on every node of the cluster in `RAY_ADDRESS`, or on this machine."""
    import ray

    files = read_paper(study).files() if study else ()
    trials = [trial for file in files for trial in expand(read_study(file), str(file))]
    data = {f"{one.spec.data}": one.spec.data for one in trials}
    uri = tracking_uri(lab)
    with connected() as nodes, _mark(lab) as token:
        say(f"{len(nodes)} node(s)")
        context = ray.get_runtime_context()
        dashboard = dashboard_port() or 8265
        expected = Expected(
            versions={"python": platform.python_version(), **{n: version(n) for n in PACKAGES}},
            locked=locked_versions(),
            code=code_hash(),
            data={name: survey(config).fingerprint for name, config in data.items()},
            uri=uri,
            dashboard_port=dashboard,
        )
        # A node may lack this package, or hold another version of it.
        for module in (probe, sys.modules[__name__]):
            ray.cloudpickle.register_pickle_by_value(module)
        ports = (dashboard, urlsplit(uri).port or 5000)
        root = str(lab.root.resolve())
        facts_by_node = run_on_nodes(probe.node_facts, nodes, root, token, uri, PACKAGES, ports)
        # Reading all scenes can take long.
        fingerprints = {
            name: run_on_nodes(probe.fingerprint, nodes, config, seconds=3600)
            for name, config in data.items()
        }
        findings = _cluster_findings(context.gcs_address, uri, len(nodes))
        for node in nodes:
            facts = facts_by_node[node.id]
            if isinstance(facts, Exception):
                reason = str(facts).strip().splitlines()[-1]
                findings.append(Finding(node.name, "node", reason, "see Ray's logs on that node"))
                continue
            more = {"clock_s": _clock_s(node), "ray_gpus": node.gpus}
            node_data = {name: str(by_node[node.id]) for name, by_node in fingerprints.items()}
            findings += judge(node.name, {**facts, **more, "data": node_data}, expected)
        return findings


@contextmanager
def _mark(lab: Lab) -> Iterator[str]:
    """Yield a random text, which a file in the lab folder holds meanwhile."""
    token, created = secrets.token_hex(8), not lab.root.exists()
    lab.root.mkdir(parents=True, exist_ok=True)
    path = lab.root.resolve() / f".doctor-{token}"
    path.write_text(token, encoding="utf-8")
    try:
        yield token
    finally:
        path.unlink()
        if created:
            lab.root.rmdir()


def _clock_s(node: Any) -> float:
    """Return the seconds that a node's clock is ahead of ours, less half of a round trip."""
    before = time.time()
    node_time = run_on_nodes(_time_now, [node])[node.id]
    after = time.time()
    if isinstance(node_time, Exception):
        return 0.0
    off = node_time - (before + after) / 2
    slack = (after - before) / 2
    return off - slack if off > slack else off + slack if off < -slack else 0.0


def _time_now() -> float:
    import time

    return time.time()


def _cluster_findings(address: str, uri: str, nodes: int) -> list[Finding]:
    """Return the findings on the cluster as a whole: its token, and its record."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    code = probe_address(address, 30, {**environment, "RAY_AUTH_MODE": "disabled"})
    needed = code == TOKEN_REFUSED
    fix = "" if needed else "set RAY_AUTH_MODE=token for every `ray start`, with one token file"
    findings = [Finding("all", "token", "needed" if needed else "not needed", fix)]
    if nodes > 1 and not uri.startswith("http"):
        fix = "start an MLflow server and set MLFLOW_TRACKING_URI: a database in a file does not "
        fix += "support writers on several machines"
        return [*findings, Finding("all", "record", "a file", fix)]
    return [*findings, Finding("all", "record", urlsplit(uri).scheme)]


def judge(node: str, facts: Mapping[str, Any], expected: Expected) -> Iterator[Finding]:
    """Yield the findings on one node, from its facts (`probe.node_facts` and more)."""

    def check(name: str, found: str, good: bool, fix: str) -> Finding:
        return Finding(node, name, found, "" if good else fix)

    for name, found in facts["versions"].items():
        # Builds of torch differ in a suffix such as +cpu or +cu130.
        plain, driver = found.split("+")[0], expected.versions[name].split("+")[0]
        locked = expected.locked.get(name, driver)
        if name == "python":
            yield check(name, found, plain == driver, f"use Python {driver}, the driver's")
        else:
            where = "there" if plain != locked else "on the driver"
            fix = f"install {name} {locked} {where}: requirements.lock"
            yield check(name, found, plain == driver == locked, fix)
    code, shared = facts["code"], facts["shared"] and facts["writable"]
    fix = "install the same mhiflab there, or use mhiflab submit"
    yield check("code", _short(code), code == expected.code, fix)
    fix = "mount the same storage there under the same path, writable"
    yield check("lab folder", "shared" if shared else "another or not writable", shared, fix)
    free, off = facts["free_gib"], facts["clock_s"]
    fix = f"free at least {LEAST_FREE_GIB:g} GiB"
    yield check("disk", f"{free:.1f} GiB free", free >= LEAST_FREE_GIB, fix)
    answer = facts["mlflow"]
    yield check("MLflow", answer or "answers", not answer, f"let this node reach {expected.uri}")
    yield check("clock", f"{off:+.2f} s", abs(off) <= MOST_CLOCK_S, "set the clock by NTP")
    for gpu in facts["gpus"]:
        text = f"{gpu['name']}, {gpu['gib']:.1f} GiB, driver {gpu['driver']}"
        fix = f"mend driver or torch build: {gpu['works']}"
        yield check("GPU", text, gpu["works"] is True, fix)
    if facts["ray_gpus"] != len(facts["gpus"]):
        text = f"Ray counts {facts['ray_gpus']:g}, torch sees {len(facts['gpus'])}"
        yield Finding(node, "GPU", text, "install a driver and a torch build that fit each other")
    for port, addresses in facts["ports"].items():
        # The dashboard must listen on loopback, MLflow there or on one private address.
        ips = [ipaddress.ip_address(address) for address in addresses]
        if port == expected.dashboard_port:
            name, option, good = "dashboard", "--dashboard-host", all(ip.is_loopback for ip in ips)
        else:
            name, option = "MLflow", "--host"
            good = all(ip.is_private and not ip.is_unspecified for ip in ips)
        fix = f"bind it to loopback ({option}=127.0.0.1) and tunnel"
        yield check(f"{name} port {port}", ", ".join(addresses), good, fix)
    for source, fingerprint in expected.data.items():
        found = facts["data"][source]
        fix = "put the same files there under the same path"
        yield check("data", _short(found), found == fingerprint, fix)


def _short(text: str) -> str:
    """Return the start of a hash, or the whole of any other text."""
    return text[:12] if len(text) == 64 else text


def locked_versions() -> dict[str, str]:
    """Return the versions in requirements.lock, by package."""
    lines = lock_file().read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {name.split("[")[0]: number for name, number in pairs}
