"""What a submitted job carries, and how a job is refused before it is sent."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from places import ROOT
from rich.console import Console
from tiny import TINY

from feinfn.errors import UserError
from mhiflab.cluster import package, submit
from mhiflab.cluster.code import code_hash, code_provenance
from mhiflab.environment import KEEP_MEMORY
from mhiflab.paths import study_path
from mhiflab.study.read import read_paper


def write(path: Path, value: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a study, what it is based on, and things that stay at home."""
    monkeypatch.chdir(tmp_path)
    protocol = {"preset": "cave_x4", "srf": "tables/mine.csv"}
    write(tmp_path / "common.yaml", {"from": "demo", "protocol": protocol})
    study = {**TINY, "base": {"from": "../common"}}
    write(tmp_path / "studies" / "mine.yaml", study)
    (tmp_path / "tables").mkdir()
    for name in ("tables/mine.csv", "tables/other.csv", "secret.env", "big.h5"):
        (tmp_path / name).write_text("1")
    (tmp_path / "lab").mkdir()
    return tmp_path


def places(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_package_holds_code_study_its_bases_and_tables_and_nothing_else(folder, tmp_path_factory):
    name, files = package.study_files("studies/mine.yaml")
    assert name == "study/studies/mine.yaml"
    assert set(files) == {name, "study/common.yaml", "tables/mine.csv"}
    target = tmp_path_factory.mktemp("package")
    code = package.write_package(target, files)
    assert code == package.write_package(tmp_path_factory.mktemp("again"), files)
    found = places(target)
    assert {"feinfn/config.py", "mhiflab/console.py", "feinfn/data/sample/manifest.json"} <= found
    tops = {place.split("/")[0] for place in found}
    assert {t for t in tops if "dist-info" not in t} == {"feinfn", "mhiflab", "study", "tables"}
    assert not [p for p in found if "/." in p or p.endswith((".pyc", ".env")) or "__pyc" in p]
    assert sum(p.stat().st_size for p in target.rglob("*") if p.is_file()) < package.LIMIT_BYTES


def test_package_of_a_paper_holds_its_studies_and_published_values():
    name, files = package.study_files("paper")
    assert name == "study/paper/paper.yaml"
    paper = read_paper(study_path("paper"))
    beside = {f"study/paper/{file.name}" for file in (*paper.files(), paper.published)}
    assert beside < set(files)
    assert {place.split("/")[1] for place in files} == {"paper", "bases"}


def test_packaged_code_runs_alone_and_knows_the_submitting_checkout(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("package")
    package.write_package(target, package.study_files("demo")[1])
    code = """
import json, mhiflab, feinfn, sys
from mhiflab.cluster.code import code_hash
from mhiflab.cluster.code import code_provenance
from mhiflab.paths import checkout, shipped_studies
print(json.dumps([mhiflab.__file__, feinfn.__file__, checkout() is None,
                  'demo' in shipped_studies(), code_hash(), code_provenance()]))
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=target,
        env={**environment, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    *paths, installed, shipped, hashed, provenance = json.loads(done.stdout)
    assert all(path.startswith(str(target)) for path in paths)
    assert (installed, shipped) == (True, True)
    assert hashed == code_hash()
    assert provenance == code_provenance()


def test_code_of_a_wheel_hashes_like_that_of_the_checkout(tmp_path):
    words = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, ROOT]
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", "from mhiflab.cluster.code import code_hash; print(code_hash())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.stdout.strip() == code_hash(), done.stderr


def test_code_that_is_too_large_is_refused(folder, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(package, "LIMIT_BYTES", 10)
    with pytest.raises(UserError, match=r"expected at most 0; the largest file is .*\.h5"):
        package.write_package(tmp_path_factory.mktemp("p"), {})


def test_a_table_outside_the_folder_is_refused(folder):
    write(
        folder / "out.yaml",
        {"title": "t", "cases": {"c": {"label": "c", "set": {"protocol.srf": "../x.csv"}}}},
    )
    with pytest.raises(UserError, match="expected a path below this folder"):
        package.study_files("out.yaml")


@pytest.mark.parametrize(
    ("lab", "uri", "reason"),
    [
        ("lab", "", "expected an absolute path"),
        ("", "", "expected an absolute path"),
        ("/lab", "http://me:word@server", "found a user or password"),
    ],
)
def test_jobs_that_cannot_work_are_refused(lab, uri, reason):
    with pytest.raises(UserError, match=reason) as refused:
        submit.study_job("demo", lab, uri)
    assert "word@" not in str(refused.value)


def test_a_dead_dashboard_fails_within_ten_seconds(mhiflab):
    done = mhiflab("submit", "demo", "--lab", "/lab", "--address", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "no dashboard answers" in done.stderr
    assert "ssh -L" in done.stderr
    # Without the start of a process, which takes what the machine has left for it.
    started = time.monotonic()
    with pytest.raises(UserError, match="no dashboard answers"):
        submit.connect("http://127.0.0.1:1", Console())
    assert time.monotonic() - started < 10


class Jobs:
    """Ray's job server as far as submission asks it."""

    def __init__(self) -> None:
        self.jobs: list = []

    def list_jobs(self) -> list:
        return self.jobs

    def submit_job(self, **words: object) -> object:
        job = SimpleNamespace(**words, ended=False)
        job.status = SimpleNamespace(is_terminal=lambda: job.ended)
        self.jobs.append(job)
        return words["submission_id"]


def test_the_same_study_and_lab_is_submitted_once_at_a_time(folder, monkeypatch):
    client, out = Jobs(), Console(file=(folder / "log").open("w+"), width=200)
    wanted = submit.study_job("studies/mine.yaml", "/lab", "http://server:5000")
    monkeypatch.setenv(KEEP_MEMORY, "0")
    first = submit.submit(client, "http://x", wanted, out)
    assert submit.submit(client, "http://x", wanted, out) == first
    (job,) = client.jobs
    assert job.entrypoint == "python -m mhiflab run study/studies/mine.yaml --lab /lab"
    assert job.runtime_env["env_vars"]["MLFLOW_TRACKING_URI"] == "http://server:5000"
    assert job.runtime_env["env_vars"][KEEP_MEMORY] == "0"
    other = submit.submit(client, "http://x", submit.study_job("studies/mine.yaml", "/b", ""), out)
    job.ended = True
    again = submit.submit(client, "http://x", wanted, out)
    assert len({first, other, again}) == 3
    assert again == first[:-1] + "2"
    (folder / "tables" / "mine.csv").write_text("2")
    assert submit.submit(client, "http://x", wanted, out) == again
    out.file.seek(0)
    assert "another study file or other code" in out.file.read()
