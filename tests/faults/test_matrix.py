"""What dies x when: the table is the same to the byte, nothing is lost, doubled or left behind.

`make test-faults` runs every case; the cases of `FAST` are part of `make test`.
"""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_server import Server
from sandbox import EPOCHS, LATE, Sandbox, wait_until

MOMENTS: dict[str, Callable[[Sandbox], bool]] = {
    "before the first report": lambda box: bool(box.journal()) and not box.reported(1),
    "inside an epoch": lambda box: box.reported(LATE) and not box.saving(),
    "during a checkpoint": lambda box: box.reported(LATE) and box.saving(),
    "after the last report": lambda box: box.reported(EPOCHS),
}
VICTIMS = (
    "driver",
    "rank 0",
    "other worker",
    "MLflow server",
    "disk",
    "checkpoint",
    "second driver",
)
FAST = {
    ("driver", "inside an epoch"),
    ("rank 0", "during a checkpoint"),
}
CASES = [
    pytest.param(
        victim,
        moment,
        id=f"{victim}-{moment}".replace(" ", "_"),
        marks=() if (victim, moment) in FAST else pytest.mark.faults,
    )
    for victim in VICTIMS
    for moment in MOMENTS
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """Return the tables of the study that nothing happens to."""
    box = Sandbox(tmp_path_factory.mktemp("undisturbed"))
    driver = box.start()
    assert driver.wait(timeout=240) == 0, box.log()
    return box.table()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Mount a file system of some megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def inject(victim: str, box: Sandbox, driver: subprocess.Popen, server: Server | None) -> None:
    """Do the harm."""
    if victim == "driver":
        driver.kill()
    elif victim in ("rank 0", "other worker"):
        process = box.rank_0(driver) if victim == "rank 0" else box.peer(driver)
        assert process is not None, "the worker to kill was not found"
        process.kill()
    elif victim == "MLflow server":
        assert server is not None
        server.kill()
    elif victim == "disk":
        with (box.lab / "filler").open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * 2**16)
                    file.flush()
            except OSError:
                pass
    elif victim == "checkpoint":
        driver.kill()
        driver.wait()
        wait_until(
            lambda: not box.left(agents=False), 30, "the end of a killed driver's processes", 0.1
        )
        for state in box.lab.glob("checkpoints/*/state.pt"):
            data = bytearray(state.read_bytes())
            data[len(data) // 2] ^= 1
            state.write_bytes(data)
    else:
        second = box.start()
        refused = second.wait(timeout=120) == 1
        # Where the first has just ended, the second has nothing to do.
        assert refused or "0 of 1 trials to execute" in box.log()
        assert refused == ("another mhiflab run is at work" in box.log())


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("victim", "moment"), CASES)
def test_fault(victim, moment, undisturbed, tmp_path, request):
    disk = request.getfixturevalue("small_disk") if victim == "disk" else None
    server = Server(tmp_path) if victim == "MLflow server" else None
    environment = {"MLFLOW_TRACKING_URI": server.uri} if server else {}
    box = Sandbox(tmp_path / "box", environment, lab_folder=disk / "lab" if disk else None)
    if server:
        server.start()
    try:
        driver = box.start()
        wait_until(
            lambda: MOMENTS[moment](box) or driver.poll() is not None, 180, f"the moment {moment}"
        )
        assert driver.poll() is None, box.log()
        box.processes(driver)
        inject(victim, box, driver, server)
        hurt_alone = victim in ("rank 0", "other worker", "MLflow server", "second driver")
        code = driver.wait(timeout=300)
        if server:
            server.start()
        if disk:
            (box.lab / "filler").unlink()
        if hurt_alone and victim != "MLflow server":
            assert code == 0, f"one run must do:\n{box.log()}"
        if victim == "driver":
            assert code == -signal.SIGKILL
        box.finish()
        check(box, undisturbed, server.uri if server else f"sqlite:///{box.lab / 'mlflow.db'}")
    finally:
        if server:
            server.kill()


def check(box: Sandbox, undisturbed: dict[str, bytes], uri: str) -> None:
    """Compare the table, and look for what was lost, doubled or left behind."""
    assert box.table() == undisturbed
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mhiflab")
    runs = client.search_runs([experiment.experiment_id])
    (trial,) = (run for run in runs if run.data.tags["mhiflab.kind"] == "trial")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    for name in ("loss", "val_psnr", "epoch"):
        assert steps(client, trial, name) == list(range(1, EPOCHS + 1)), name
    kept = {item.path for item in client.list_artifacts(trial.info.run_id)}
    assert {"metrics_test.csv", "metrics_bands.csv", "provenance.json", "model"} <= kept
    assert not list(box.lab.glob("runs/*"))
    assert not list(box.lab.glob("ray/*"))
    assert not list(box.lab.rglob("*.partial"))
    wait_until(lambda: not box.left(agents=False), 30, f"the end of {box.left()}", 0.2)


def steps(client: MlflowClient, run: Run, name: str) -> list[int]:
    """Return the recorded steps of a metric, as often as they are recorded."""
    return [point.step for point in client.get_metric_history(run.info.run_id, name)]
