"""What lies in a lab folder and is needed by no run: found, told and removed."""

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from feinfn.errors import UserError
from mhiflab.driver import only_driver
from mhiflab.paths import Lab
from mhiflab.record.store import existing_store, trial_runs


@dataclass(frozen=True)
class Leftover:
    """A folder that may go, its bytes, and why."""

    path: Path
    size: int
    why: str


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def leftovers(lab: Lab) -> list[Leftover]:
    """Return training states that no run continues from, and Ray's folders of ended sweeps."""
    store = existing_store(lab)
    runs = trial_runs(store) if store else {}
    found = []
    for folder in sorted(lab.states.glob("*")):
        # Nothing that we did not name after a run key is ours to remove.
        if not re.fullmatch(r"[0-9a-f]{64}", folder.name) or folder.is_symlink():
            continue
        run = runs.get(folder.name)
        why = ""
        if run is None:
            why = "no run on record"
        elif run.info.status == "FINISHED" and not (lab.spool / folder.name).exists():
            why = "its run is finished, and holds the weights"
        if why:
            found.append(Leftover(folder, _size(folder), why))
    sweeps = sorted(lab.ray.glob("*"))
    return found + [Leftover(one, _size(one), "left by a sweep that was cut off") for one in sweeps]


def clear_scratch(lab: Lab) -> None:
    """Remove what a driver that was cut off left of its sweep, unless another is at work."""
    if any(lab.ray.glob("*")):
        with suppress(UserError), only_driver(lab, "clearing"):
            for one in lab.ray.iterdir():
                shutil.rmtree(one)


def remove(found: list[Leftover], lab: Lab) -> None:
    """Remove leftovers; raises `UserError` while a driver is at work in the lab."""
    with only_driver(lab, "gc"):
        for one in found:
            shutil.rmtree(one.path)
