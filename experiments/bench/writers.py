"""Many processes that record runs into one store at once: check for losses, measure the speed.

    python experiments/bench/writers.py [--writers 16] [--steps 50] [--uri URI] [--lab FOLDER]

Every writer records one run: parameters, one batch of metrics per step, and artifacts. Then all is
read back and counted. The exit code is 1 if a point, parameter or artifact is missing. The store is
a new SQLite file if --uri is not given. On a server, the runs stay under study `writers`.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
import uuid
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

from mhiflab.environment import quieten
from mhiflab.paths import Lab
from mhiflab.record.database.errors import without_passwords
from mhiflab.record.store import open_store, tracking_uri, trial_runs
from mhiflab.record.studies import study_run
from mhiflab.record.writer import finish_study, trial_record, upload_waiting_folders

METRICS, PARAMS, ARTIFACTS = 10, 40, 3
ARTIFACT_BYTES = 64 * 1024
STUDY = "writers"
READY: Barrier


def prepare(ready: Barrier) -> None:
    """Give a writer's process the barrier at which all writers wait."""
    global READY
    READY = ready
    quieten()


def write(lab: Lab, uri: str, parent: str, steps: int, key: str) -> tuple[float, float, float]:
    """Record one run when all writers are ready; return the times of begin, last write and end."""
    READY.wait()
    started = time.time()
    with trial_record(lab, uri, key, f"writer {key[:8]}", parent, {}) as record:
        record.settings({f"param_{i}": i for i in range(PARAMS)}, {"mhiflab.label": "writer"})
        for step in range(1, steps + 1):
            record.metrics(step, {f"metric_{i}": step + i / METRICS for i in range(METRICS)})
        for i in range(ARTIFACTS):
            record.text("x" * ARTIFACT_BYTES, f"file_{i}.txt")
        wrote = time.time()
        record.finish()
    return started, wrote, time.time()


def count(lab: Lab, uri: str, keys: list[str]) -> dict[str, int]:
    """Return counts of what the store holds of some runs; repeated points count every time."""
    store = open_store(lab, uri)
    found = [run for key, run in trial_runs(store).items() if key in keys]
    ids = [run.info.run_id for run in found]
    history = store.client.get_metric_history
    return {
        "finished runs": sum(run.info.status == "FINISHED" for run in found),
        "points": sum(len(history(i, f"metric_{m}")) for i in ids for m in range(METRICS)),
        "parameters": sum(len(run.data.params) for run in found),
        "artifacts": sum(len(store.client.list_artifacts(i)) for i in ids),
    }


def main() -> int:
    """Write, read back and print a table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50, help="batches of each writer")
    parser.add_argument("--uri", help="tracking URI; a new SQLite file by default")
    parser.add_argument("--lab", type=Path, help="lab folder; a temporary one by default")
    given = parser.parse_args()
    quieten()
    with tempfile.TemporaryDirectory(prefix="mhiflab-") as place:
        lab = Lab(given.lab or Path(place))
        uri = given.uri or tracking_uri(lab)
        # One process opens a new database before others join.
        parent = study_run(open_store(lab, uri), STUDY, "", "Runs of experiments/bench/writers.py")
        keys = [uuid.uuid4().hex for _ in range(given.writers)]
        spawn = multiprocessing.get_context("spawn")
        ready = spawn.Barrier(given.writers)
        with spawn.Pool(given.writers, prepare, [ready]) as pool:
            times = pool.map(partial(write, lab, uri, parent, given.steps), keys, chunksize=1)
            late = upload_waiting_folders(lab, uri)
            # A writer that stopped waiting may still have one request under way.
            while late.waiting and time.time() < max(t[2] for t in times) + 120:
                time.sleep(1)
                late = upload_waiting_folders(lab, uri)
        ended = time.time() if late.uploaded else max(t[2] for t in times)
        seconds = ended - min(t[0] for t in times)
        finish_study(lab, uri, STUDY, complete=late.waiting == 0)
        found = count(lab, uri, keys)
    each = {
        "finished runs": 1,
        "points": given.steps * METRICS,
        "parameters": PARAMS,
        "artifacts": ARTIFACTS,
    }
    print(f"{given.writers} writers, {without_passwords(uri)}")
    print(f"{'':15s}{'expected':>10s}{'found':>10s}{'per second':>12s}")
    for name, count_each in each.items():
        expected = count_each * given.writers
        print(f"{name:15s}{expected:10d}{found[name]:10d}{found[name] / seconds:12.1f}")
    wrote, ended = (max(t[i] - t[0] for t in times) for i in (1, 2))
    print(f"slowest writer: {wrote:.1f} s to write, {ended:.1f} s with its wait at the end")
    print(f"all arrived after {seconds:.1f} s, {late.uploaded} runs left to a later upload")
    if late.waiting:
        print(f"{late.waiting} runs still wait: {late.reason}")
    return int(late.waiting > 0 or any(found[n] != each[n] * given.writers for n in each))


if __name__ == "__main__":
    sys.exit(main())
