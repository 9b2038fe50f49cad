"""A trial's identity: the hash of everything that determines its result."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from feinfn.metrics.conventions import CONVENTION
from mhiflab.study.spec import Spec

SCHEMA_VERSION = 1
"""Raised when the same spec begins to mean another computation."""

SAME_BATCHES = "every count trains on the same batches in the same order; sums differ by rounding"

ONLY_PLACE = "says where a trial runs, not what it computes"

ONLY_MEMORY = "a way to compute the same values in less memory, up to rounding"

BY_CONTENT = "the fingerprint holds the pixels of every part; where they lie does not matter"

BY_FINGERPRINT = "the fingerprint holds the names of every part's scenes with their pixels"

ONLY_TEXT = "a text for readers"

OUTSIDE: dict[str, str] = {
    "resources.workers": SAME_BATCHES,
    "resources.cpus_per_worker": ONLY_PLACE,
    "resources.gpus_per_worker": ONLY_PLACE,
    "resources.gpu_memory_gib": ONLY_PLACE,
    "resources.memory_mib": ONLY_MEMORY,
    "resources.recompute": ONLY_MEMORY,
    "resources.accumulate": ONLY_MEMORY,
    "resources.checkpoint_every": "a training that continues equals one that was never cut off",
    "data.source": BY_CONTENT,
    "data.train": BY_FINGERPRINT,
    "data.validation": BY_FINGERPRINT,
    "data.test": BY_FINGERPRINT,
    "protocol.name": ONLY_TEXT,
    "protocol.about": ONLY_TEXT,
    "protocol.known": ONLY_TEXT,
    "protocol.inferred": ONLY_TEXT,
    "protocol.source": ONLY_TEXT,
    "protocol.srf": "the table's content is hashed instead of its name",
}
"""Fields that the hashed form leaves out, each with its reason; every other field is in it."""

MAY_CHANGE = frozenset(path for path, why in OUTSIDE.items() if why != BY_FINGERPRINT)
"""Fields that may differ when a run continues."""


def canonical(spec: Spec, fingerprint: str) -> dict[str, Any]:
    """Return what a run key hashes: the resolved spec with data by content, not by path."""
    content = asdict(spec)
    content["data"] = {"fingerprint": fingerprint, "inputs": spec.data.inputs}
    content["protocol"] = spec.protocol.definition()
    if not spec.train.changes:
        # The key of a training without any is older than the field.
        del content["train"]["changes"]
    if not spec.trained:
        # Neither says anything about a method that learns from the two images alone.
        del content["train"], content["seed"]
    return {"schema": SCHEMA_VERSION, "convention": CONVENTION, "spec": content}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def run_key(spec: Spec, fingerprint: str) -> str:
    """Return the run key, 64 hexadecimal digits: SHA-256 of the canonical form as JSON."""
    return _digest(canonical(spec, fingerprint))


def spec_hash(spec: Spec) -> str:
    """Return the hash of a spec alone: equal for runs that differ in the data's pixels only."""
    return _digest(canonical(spec, ""))
