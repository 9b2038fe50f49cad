"""Writer of a run's record: first to a folder on this disk, then to MLflow as soon as it takes it.

A write costs one line in a journal; a thread uploads it. Parts that have not arrived when a run
ends stay in its folder until `upload_waiting_folders`, so no outage stops a training.
"""

import json
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.record import tag
from mhiflab.record.artifacts import ERROR_FILE
from mhiflab.record.database.errors import explain, is_refusal
from mhiflab.record.run_folder import Part, RunFolder
from mhiflab.record.store import connect
from mhiflab.record.studies import context_tags
from mhiflab.record.upload import Upload
from mhiflab.study.identity import MAY_CHANGE

EARLIER = "spool"
"""Folder of waiting runs in a lab of an earlier version."""

DRAIN_S = 10.0
"""Seconds that the end of a run waits for its store to take the remaining parts."""

FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
"""First and longest pause between attempts while a store does not answer; each pause doubles."""


class Record:
    """Writer of one run; every method returns when what it writes is on this disk.

    As a context manager it releases the run's folder at the end. If the run is unfinished then, the
    folder keeps what has not arrived, for the process that continues the run.
    """

    def __init__(self, lab: Lab, uri: str, folder: str, opening: Part) -> None:
        """Open the run's folder of that name; `opening` is the part that makes a new run."""
        self.folder = RunFolder(lab.runs / folder)
        tags = opening.tags | context_tags()
        self.folder.append(replace(opening, tags=tags, started_ms=_now_ms()))
        self._upload = Upload(partial(connect, lab, uri), self.folder)
        self._news, self._hurry = threading.Event(), threading.Event()
        self._closing = self._stop = False
        self._news.set()
        self._thread = threading.Thread(target=self._advance, name="record", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close(DRAIN_S if error is None else 0.0)

    def add(self, part: Part) -> None:
        """Record a part of the run."""
        if self._closing:
            raise RuntimeError("this record is closed")
        self.folder.append(part)
        self._news.set()

    def _advance(self) -> None:
        pause = FIRST_RETRY_S
        while not self._stop:
            closing = self._closing
            self._news.clear()
            try:
                self._upload.advance(lambda: self._stop)
            except Exception:
                # No error may reach the training; a later upload reports one that persists.
                if closing:
                    time.sleep(FIRST_RETRY_S)
                self._hurry.wait(pause)
                pause = min(2 * pause, LONGEST_RETRY_S)
                continue
            pause = FIRST_RETRY_S
            if closing:
                if self._upload.ended and not self._stop:
                    self.folder.remove()
                break
            self._news.wait()
        self.folder.close()

    def close(self, wait_s: float = DRAIN_S) -> None:
        """Stop writing; wait at most so long for the store, then leave the rest in the folder."""
        if self._closing:
            return
        self._closing = True
        self._hurry.set()
        self._news.set()
        self._thread.join(wait_s)
        # The thread itself releases the folder, when its last request has ended.
        self._stop = True

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record one step's metrics; a step that is on record keeps its values."""
        self.add(Part(metrics={name: [(step, float(value))] for name, value in values.items()}))

    def settings(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Record the resolved spec as parameters, and further tags."""
        texts = {k: str(v) for k, v in params.items() if k not in MAY_CHANGE}
        self.add(Part(params=texts, tags=dict(tags)))

    def datasets(self, datasets: Mapping[str, Mapping[str, str]]) -> None:
        """Record data sets by context: each has a name, digest, source_type and source."""
        self.add(Part(datasets={k: dict(v) for k, v in datasets.items()}))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, or every file of a folder, as it is now."""
        artifact = f"{folder}/{path.name}".lstrip("/")
        if path.is_dir():
            for inner in sorted(path.iterdir()):
                self.artifact(inner, artifact)
        else:
            self.folder.keep(path, artifact)
            self.add(Part(copies={artifact: artifact}))

    def text(self, text: str, name: str) -> None:
        """Record a text as a file."""
        self.add(Part(files={name: text}))

    def json(self, value: Any, name: str) -> None:
        """Record a value as a JSON file."""
        self.text(json.dumps(value, indent=2, sort_keys=True) + "\n", name)

    def finish(self, complete: bool = True) -> None:
        """Close the run as done, or as failed."""
        self.add(Part(status="FINISHED" if complete else "FAILED", ended_ms=_now_ms()))
        self.close()

    def fail(self, message: str, traceback: str) -> None:
        """Close the run as failed, with its reason as a tag and the traceback as an artifact."""
        self.add(Part(tags={tag.ERROR: message[:4000]}, files={ERROR_FILE: traceback}))
        self.finish(complete=False)


def trial_record(
    lab: Lab, uri: str, key: str, name: str, parent: str, tags: dict[str, str]
) -> Record:
    """Open the record of a trial, found by its run key, for one process at a time."""
    all_tags = {tag.PARENT: parent, **tags, tag.KIND: "trial", tag.KEY: key}
    return Record(lab, uri, key, Part(name=name, tags=all_tags))


def finish_study(lab: Lab, uri: str, study: str, complete: bool) -> None:
    """Close a study's parent run."""
    opening = Part(name=f"study {study}", tags={tag.KIND: "study", tag.STUDY: study})
    Record(lab, uri, f"study-{study}", opening).finish(complete)


@dataclass(frozen=True)
class Waiting:
    """Number of runs in a lab's folders that were uploaded, and that still wait."""

    uploaded: int
    waiting: int
    reason: str = ""
    """Reason why the last one waits."""


def waiting_folders(lab: Lab) -> list[Path]:
    """Return the folders of runs that have not reached the store, earlier versions' first."""
    places = (lab.root / EARLIER, lab.runs)
    return [folder for place in places if place.is_dir() for folder in sorted(place.iterdir())]


def upload_waiting_folders(lab: Lab, uri: str) -> Waiting:
    """Upload the runs that wait in a lab; a run that is being written now counts as waiting.

    Try no further run once the store cannot be reached.
    """
    done = waiting = 0
    reason, reachable = "", True
    for path in waiting_folders(lab):
        if not reachable:
            waiting += 1
            continue
        try:
            with closing(RunFolder(path, wait_s=0)) as folder:
                if parts := folder.parts():
                    # A run without an end in its journal was interrupted.
                    opens = bool(parts[-1][0].status)
                    Upload(partial(connect, lab, uri), folder, opens).advance()
                    done += 1
                folder.remove()
        except UserError as error:
            waiting, reason = waiting + 1, str(error)
        except Exception as error:
            waiting, reason = waiting + 1, explain(uri, error)
            reachable = is_refusal(error)
    return Waiting(done, waiting, reason)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
