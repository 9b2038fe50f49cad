"""Writer of a run's record: first to this disk, then to MLflow as soon as the store takes it.

A write costs one line in a journal; a thread uploads it. Entries that have not arrived when a run
ends stay in `lab/spool` until `replay`, so no outage stops a training.
"""

import json
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.record.journal import Spool
from mhiflab.record.store import (
    ERROR_FILE,
    ERROR_TAG,
    KEY,
    KIND,
    STUDY,
    context_tags,
    explain,
    is_refusal,
)
from mhiflab.record.upload import Applier
from mhiflab.study.identity import MAY_CHANGE

DRAIN_S = 10.0
"""Seconds that the end of a run waits for its store to take the remaining entries."""

FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
"""First and longest pause between attempts while a store does not answer; each pause doubles."""


class Record:
    """Writer of one run; every method returns when its entry is on this disk.

    As a context manager it releases the spool at the end. If the run is unfinished then, the spool
    keeps the entries that have not arrived, for the process that continues the run.
    """

    def __init__(
        self, lab: Lab, uri: str, folder: str, name: str, identity: dict[str, str], tags: dict
    ) -> None:
        """Open the spool folder of that name; the run is found by its tags `identity`, or created.

        A new run gets `name`, `identity` and `tags`.
        """
        self.spool = Spool(lab.spool / folder)
        all_tags = {**tags, **context_tags()}
        self._append("start", name=name, identity=identity, tags=all_tags, ms=_now_ms())
        self._applier = Applier(self.spool, lab, uri)
        self._news, self._hurry = threading.Event(), threading.Event()
        self._closing = self._stop = False
        self._news.set()
        self._thread = threading.Thread(target=self._apply, name="record", daemon=True)
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

    def _append(self, op: str, **content: Any) -> None:
        self.spool.append({"op": op, **content})

    def _enqueue(self, op: str, **content: Any) -> None:
        if self._closing:
            raise RuntimeError("this record is closed")
        self._append(op, **content)
        self._news.set()

    def _apply(self) -> None:
        pause = FIRST_RETRY_S
        while not self._stop:
            closing = self._closing
            self._news.clear()
            try:
                self._applier.advance(lambda: self._stop)
            except Exception:
                # No error may reach the training; `replay` reports one that persists.
                if closing:
                    time.sleep(FIRST_RETRY_S)
                self._hurry.wait(pause)
                pause = min(2 * pause, LONGEST_RETRY_S)
                continue
            pause = FIRST_RETRY_S
            if closing:
                if self._applier.ended and not self._stop:
                    self.spool.remove()
                break
            self._news.wait()
        self.spool.close()

    def close(self, wait_s: float = DRAIN_S) -> None:
        """Stop writing; wait at most so long for the store, then leave the rest in the spool."""
        if self._closing:
            return
        self._closing = True
        self._hurry.set()
        self._news.set()
        self._thread.join(wait_s)
        # The thread itself releases the spool, when its last request has ended.
        self._stop = True

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record one step's metrics in one batch; a step that is on record keeps its values."""
        self._enqueue("batch", step=step, metrics={k: float(v) for k, v in values.items()})

    def settings(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Record the resolved spec as parameters, and further tags."""
        texts = {k: str(v) for k, v in params.items() if k not in MAY_CHANGE}
        self._enqueue("batch", params=texts, tags=dict(tags))

    def datasets(self, datasets: Mapping[str, Mapping[str, str]]) -> None:
        """Record data sets by context: each has a name, digest, source_type and source."""
        self._enqueue("inputs", datasets={k: dict(v) for k, v in datasets.items()})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, or every file of a folder, as it is now."""
        if path.is_dir():
            for inner in sorted(path.iterdir()):
                self.artifact(inner, f"{folder}/{path.name}".lstrip("/"))
        else:
            self._enqueue("file", file=self.spool.keep(path), folder=folder)

    def text(self, text: str, name: str) -> None:
        """Record a text as a file."""
        with tempfile.TemporaryDirectory(prefix="mhiflab-") as folder:
            path = Path(folder) / Path(name).name
            path.write_text(text, encoding="utf-8")
            self.artifact(path, str(Path(name).parent).removeprefix("."))

    def json(self, value: Any, name: str) -> None:
        """Record a value as a JSON file."""
        self.text(json.dumps(value, indent=2, sort_keys=True) + "\n", name)

    def finish(self, complete: bool = True) -> None:
        """Close the run as done, or as failed."""
        self._enqueue("end", status="FINISHED" if complete else "FAILED", ms=_now_ms())
        self.close()

    def fail(self, message: str, traceback: str) -> None:
        """Close the run as failed, with its reason as a tag and the traceback as an artifact."""
        self.text(traceback, ERROR_FILE)
        self._enqueue("batch", tags={ERROR_TAG: message[:4000]})
        self.finish(complete=False)


def trial_record(
    lab: Lab, uri: str, key: str, name: str, parent: str, tags: dict[str, str]
) -> Record:
    """Open the record of a trial, found by its run key, for one process at a time."""
    all_tags = {"mlflow.parentRunId": parent, **tags}
    return Record(lab, uri, key, name, {KIND: "trial", KEY: key}, all_tags)


def finish_study(lab: Lab, uri: str, study: str, complete: bool) -> None:
    """Close a study's parent run."""
    identity = {KIND: "study", STUDY: study}
    Record(lab, uri, f"study-{study}", f"study {study}", identity, {}).finish(complete)


@dataclass(frozen=True)
class ReplayResult:
    """Number of runs in a spool that were uploaded, and that still wait."""

    replayed: int
    waiting: int
    reason: str = ""
    """Reason why the last one waits."""


def replay(lab: Lab, uri: str) -> ReplayResult:
    """Upload the runs in the lab's spool; a run that is being written now counts as waiting.

    Try no further run once the store cannot be reached.
    """
    done = waiting = 0
    reason, reachable = "", True
    for folder in sorted(lab.spool.iterdir()) if lab.spool.is_dir() else []:
        if not reachable:
            waiting += 1
            continue
        try:
            with closing(Spool(folder, wait_s=0)) as spool:
                entries = spool.entries()[0]
                if entries:
                    # A run without an end in its journal was interrupted.
                    Applier(spool, lab, uri, opens=entries[-1]["op"] == "end").advance()
                    done += 1
                spool.remove()
        except UserError as error:
            waiting, reason = waiting + 1, str(error)
        except Exception as error:
            waiting, reason = waiting + 1, explain(uri, error)
            reachable = is_refusal(error)
    return ReplayResult(done, waiting, reason)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
