"""A trial of a GPU machine in minutes: tests, speed, memory and a training, one after the other.

    python -m experiments.gpu.run --out gpu-results --seconds 480

Every part runs in a process of its own with a share of the time. What it finds is written as it
goes, so that the same command continues after a break. This process needs no torch and outlives
whatever a part does.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from experiments.gpu.record import NO_DEVICE, PAGE, Record, work_folder

SHARES = {
    "machine": 0.05,
    "tests": 0.25,
    "compiled": 0.17,
    "speed": 0.19,
    "memory": 0.06,
    "oom": 0.06,
    "ddp": 0.04,
    "laboratory": 0.08,
    "training": 0.10,
}
"""Parts in order, and their shares of the time; what one leaves is the next one's."""

FINISHED = ("passed", "skipped")
"""Ends after which a part is not run again."""

GRACE_S = 4.0
"""Seconds for a part to end by itself."""

LEAST_S = 15.0
"""Seconds that a part may take even if those before it took longer, unless all time is over."""


def run_part(part: str, options: argparse.Namespace, until: float) -> int:
    """Run a part until a time at most and return its exit status; record an end if it has none."""
    record, log = Record(options.out), work_folder(options.out) / f"{part}.log"
    before, began = len(record.facts()), time.time()
    start = "from experiments.gpu.part import main; main()"
    words = [sys.executable, "-c", start, part, str(options.out)]
    words += [options.device, str(until - GRACE_S), options.data, options.protocol]
    with log.open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, process_group=0)
        try:
            status = process.wait(max(until - time.time(), 1))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # Also what the part has started, and if this process is told to end.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    ended = any(x["part"] == part and "end" in x for x in record.facts()[before:])
    if not ended and status != NO_DEVICE:
        seconds = round(time.time() - began, 1)
        if status is None:
            rows = record.rows(part)
            bad = [name for name, row in rows.items() if row.get("outcome") == "failed"]
            summary = f"its time was over after {len(rows)} rows, {len(bad)} failed"
            record.add(part, end="failed" if bad else "cut", seconds=seconds, summary=summary)
        else:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            summary = f"its process ended with {status}"
            record.add(part, end="failed", seconds=seconds, summary=summary, error=tail)
    return status or 0


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=lambda x: Path(x).resolve(), default="gpu-results")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", default="sample", help="sample, demo, or scenes of at most 30 MB")
    parser.add_argument("--protocol", default="cave_x4")
    parser.add_argument("--parts", nargs="*", choices=SHARES, help="these instead of all")
    return parser.parse_args()


def main() -> int:
    """Run the parts that are not finished; return 1 if any has failed."""
    began, options = time.time(), arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    created = not options.out.exists()
    work_folder(options.out).mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    record, share = Record(options.out), 0.0
    for part, its_share in SHARES.items():
        share += its_share
        # The machine may be another one than before.
        if part != "machine" and options.parts and part not in options.parts:
            continue
        end = record.ends().get(part, {})
        if part != "machine" and end.get("end") in FINISHED:
            print(f"{part:11} {end['end']} before: {end['summary']}", flush=True)
            continue
        # To load torch for the first time may take long.
        usual = min(LEAST_S, options.seconds / 16)
        least = time.time() + (60 if part == "machine" else usual)
        until = min(max(began + options.seconds * share, least), began + options.seconds)
        print(f"{part:11} begins, {until - time.time():.0f} s at most", flush=True)
        if run_part(part, options, until) == NO_DEVICE:
            print(f"There is no {options.device} here: nothing to try (DEVICE=cpu tries the kit).")
            if created:
                shutil.rmtree(work_folder(options.out))
                options.out.rmdir()
            return 0
        end = record.ends()[part]
        print(f"{part:11} {end['end']} in {end['seconds']:.0f} s: {end['summary']}", flush=True)
        record.write_page()
    failed = [part for part, end in record.ends().items() if end["end"] == "failed"]
    print(f"{'; '.join(failed) + ' failed; ' if failed else ''}see {options.out / PAGE}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
