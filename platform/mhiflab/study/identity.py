"""Identity of a trial: the hash of everything that determines its result."""

import hashlib
import json
from typing import Any

from feinfn.metrics.label import CONVENTION
from mhiflab.study.spec import Spec, settings_of

SCHEMA_VERSION = 1
"""Version of the hashed form; increase it if the same spec comes to mean another computation."""

SAME_BATCHES = "every count trains on the same batches in the same order; sums differ by rounding"
ONLY_PLACE = "says where a trial runs, not what it computes"
ONLY_MEMORY = "computes the same values in less memory, up to rounding"
BY_CONTENT = "the fingerprint covers the pixels of every part; their location does not matter"
BY_FINGERPRINT = "the fingerprint covers the names of every part's scenes with their pixels"
ONLY_TEXT = "a text for readers"

UNHASHED: dict[str, str] = {
    "resources.workers": SAME_BATCHES,
    "resources.cpus_per_worker": ONLY_PLACE,
    "resources.gpus_per_worker": ONLY_PLACE,
    "resources.gpu_memory_gib": ONLY_PLACE,
    "resources.memory_mib": ONLY_MEMORY,
    "resources.recompute": ONLY_MEMORY,
    "resources.accumulate": ONLY_MEMORY,
    "resources.checkpoint_every": "a resumed training equals one that was never interrupted",
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
"""Fields that the run key does not hash, each with its reason; it hashes every other field."""

MAY_CHANGE = frozenset(path for path, reason in UNHASHED.items() if reason != BY_FINGERPRINT)
"""Fields that may differ when a run continues."""


def run_key(spec: Spec, fingerprint: str) -> str:
    """Return the run key, 64 hexadecimal digits: SHA-256 of the canonical form as JSON."""
    return digest(canonical(spec, fingerprint))


def canonical(spec: Spec, fingerprint: str) -> dict[str, Any]:
    """Return the content that a run key hashes: the resolved spec, its data by fingerprint."""
    content = settings_of(spec)
    content["data"] = {"fingerprint": fingerprint, "inputs": spec.data.inputs}
    content["protocol"] = spec.protocol.definition()
    if not spec.train.changes:
        # Keys of trainings without changes are older than this field.
        del content["train"]["changes"]
    if not spec.trained:
        # A method that learns from the two images alone depends on neither.
        del content["train"], content["seed"]
    return {"schema": SCHEMA_VERSION, "convention": CONVENTION, "spec": content}


def digest(value: Any) -> str:
    """Return the hash of a canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def spec_hash(spec: Spec) -> str:
    """Return the hash of a spec without its data: equal if only the data's pixels differ."""
    return digest(canonical(spec, ""))
