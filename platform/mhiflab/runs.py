"""Recorded runs as people name them: by the first digits of their keys."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow.entities import Run

from feinfn.errors import UserError
from mhiflab.tracking import KEY, Store, artifact_file, has_artifact, shown, trial_runs

LEAST_DIGITS = 6


def chosen_runs(store: Store, given: Sequence[str]) -> list[Run]:
    """Return the finished run of every run key or unambiguous prefix, in their order.

    Raises `UserError` for what is no key, unknown, ambiguous or not finished.
    """
    recorded = trial_runs(store)
    return [_chosen(recorded, one, store) for one in given]


def _chosen(recorded: Mapping[str, Run], given: str, store: Store) -> Run:
    keys = "shown by: mhiflab plan STUDY --keys"
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", given):
        raise UserError(
            f"run {given!r}: expected a run key or at least its first {LEAST_DIGITS} digits, as "
            f"{keys}"
        )
    found = sorted(key for key in recorded if key.startswith(given))
    if not found:
        raise UserError(
            f"run {given}: found no such run among the {len(recorded)} on record in "
            f"{shown(store.uri)}, expected a key {keys}"
        )
    if len(found) > 1:
        raise UserError(
            f"run {given}: found {len(found)} runs that begin so ({', '.join(found)}), expected "
            "one; give more digits"
        )
    run = recorded[found[0]]
    if run.info.status != "FINISHED":
        raise UserError(
            f"run {given}: found it {run.info.status}, expected FINISHED; let its study finish "
            "first: mhiflab run STUDY"
        )
    return run


@contextmanager
def packaged_model(store: Store, run: Run) -> Iterator[Path]:
    """Yield a local copy of a finished run's packaged model; raise `UserError` where it has none.

    Classical methods, and runs that a search did not test, have none.
    """
    key = run.data.tags[KEY]
    if not has_artifact(store, run.info.run_id, "model"):
        raise UserError(
            f"run {key}: found no model with it, expected a run that was trained and tested; "
            "choose another, or give weights with --weights"
        )
    with artifact_file(store, run.info.run_id, "model") as folder:
        yield folder
