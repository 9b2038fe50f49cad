"""What doctor says about a node, and a look at this machine through the command itself."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mhiflab.cluster import doctor, probe
from mhiflab.cluster.doctor import Expected, judge
from mhiflab.paths import Lab

VERSIONS = {"python": "3.11.7", "torch": "2.13.0+cu130", "ray": "2.60.0"}
EXPECTED = Expected(
    versions=VERSIONS,
    locked={"torch": "2.13.0", "ray": "2.60.0"},
    code="c" * 64,
    data={"cave": "f" * 64},
    uri="http://10.0.0.1:5000",
    dashboard_port=8265,
)
GPU = {"name": "H100", "gib": 79.2, "driver": "580.1", "works": True}
WELL = {
    "versions": {**VERSIONS, "torch": "2.13.0"},
    "code": "c" * 64,
    "shared": True,
    "writable": True,
    "free_gib": 50.0,
    "mlflow": "",
    "clock_s": 0.2,
    "gpus": [GPU],
    "ray_gpus": 1.0,
    "ports": {8265: ["127.0.0.1"], 5000: ["10.0.0.1"]},
    "data": {"cave": "f" * 64},
}


def wrong(expected: Expected = EXPECTED, **changes: object) -> dict[str, str]:
    return {one.check: one.fix for one in judge("n", {**WELL, **changes}, expected) if one.fix}


def test_nothing_is_wrong_with_a_good_node():
    assert wrong() == {}


@pytest.mark.parametrize(
    ("changes", "check", "fix"),
    [
        ({"versions": {**VERSIONS, "torch": "2.9.0"}}, "torch", "install torch 2.13.0"),
        ({"versions": {**VERSIONS, "ray": "missing"}}, "ray", "install ray 2.60.0"),
        ({"versions": {**VERSIONS, "python": "3.12.1"}}, "python", "use Python 3.11.7"),
        ({"code": "d" * 64}, "code", "install the same mhiflab"),
        ({"code": "ImportError: no"}, "code", "install the same mhiflab"),
        ({"shared": False}, "lab folder", "mount the same storage"),
        ({"writable": False}, "lab folder", "mount the same storage"),
        ({"free_gib": 0.5}, "disk", "free at least 2 GiB"),
        ({"mlflow": "refused"}, "MLflow", "let this node reach http://10.0.0.1:5000"),
        ({"clock_s": -3.0}, "clock", "NTP"),
        ({"gpus": [{**GPU, "works": "no kernel"}]}, "GPU", "no kernel"),
        ({"gpus": []}, "GPU", "install a driver"),
        ({"ports": {8265: ["10.0.0.1"]}}, "dashboard port 8265", "--dashboard-host=127.0.0.1"),
        ({"ports": {5000: ["0.0.0.0"]}}, "MLflow port 5000", "--host=127.0.0.1"),
        ({"ports": {5000: ["::"]}}, "MLflow port 5000", "--host=127.0.0.1"),
        ({"ports": {5000: ["198.51.100.7", "8.8.8.8"]}}, "MLflow port 5000", "--host=127.0.0.1"),
        ({"data": {"cave": "UserError: gone"}}, "data", "put the same files there"),
    ],
)
def test_one_wrong_thing_is_named_with_its_remedy(changes, check, fix):
    found = wrong(**changes)
    assert list(found) == [check]
    assert fix in found[check]


def test_a_driver_off_the_lock_is_told_too():
    mine = replace(EXPECTED, versions={**VERSIONS, "ray": "2.61.0"})
    assert "on the driver" in wrong(mine)["ray"]


def test_facts_of_this_machine(tmp_path):
    import socket

    (tmp_path / ".doctor-t").write_text("t")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        facts = probe.node_facts(
            str(tmp_path), "t", "http://127.0.0.1:1", ("ray", "no-such"), (port,)
        )
        if sys.platform == "linux":
            assert facts["ports"] == {port: ["127.0.0.1"]}
    assert facts["versions"]["no-such"] == "missing"
    assert facts["shared"]
    assert facts["mlflow"]
    assert not probe.node_facts(str(tmp_path / "other"), "t", "", (), ())["shared"]


def test_mark_leaves_no_trace(tmp_path):
    with doctor._mark(Lab(tmp_path / "lab")) as token:
        assert (tmp_path / "lab" / f".doctor-{token}").read_text() == token
    assert list(tmp_path.iterdir()) == []


def test_doctor_on_this_machine_names_every_check(mhiflab, write_study, tmp_path: Path):
    done = mhiflab("doctor", write_study())
    assert "node(s)" in done.stdout, done.stderr
    for check in ("token", "record", "python", "torch", "code", "lab folder", "disk", "clock"):
        assert re.search(rf"  {check} ", done.stdout), check
    data = next(line for line in done.stdout.splitlines() if "  data " in line)
    assert re.search(r"  [0-9a-f]{12} +ok", data)
    code = next(line for line in done.stdout.splitlines() if "  code " in line)
    assert "ok" in code
    token = next(line for line in done.stdout.splitlines() if "  token " in line)
    assert "  needed " in token
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r"all|\d+\.", line)]
    failed = [row for row in rows if row[-1] != "ok"]
    assert done.returncode == (1 if failed else 0), done.stdout
    assert not (tmp_path / "lab").exists()
