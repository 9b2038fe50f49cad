"""A trial's identity: the hash of everything that determines its result."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from feinfn.metrics import CONVENTION
from mhiflab.spec import Spec

SCHEMA_VERSION = 1
"""Raised when the same spec begins to mean another computation."""


def canonical(spec: Spec, fingerprint: str) -> dict[str, Any]:
    """Return what a run key hashes: the resolved spec with data by content, not by path."""
    content = asdict(spec)
    content["data"] = {"fingerprint": fingerprint, "inputs": spec.data.inputs}
    content["protocol"] = spec.protocol.definition()
    return {"schema": SCHEMA_VERSION, "convention": CONVENTION, "spec": content}


def run_key(spec: Spec, fingerprint: str) -> str:
    """Return the run key, 64 hexadecimal digits: SHA-256 of the canonical form as JSON."""
    return _sha256(canonical(spec, fingerprint))


def spec_hash(spec: Spec) -> str:
    """Return the SHA-256 of the canonical form without data: equal for equal settings anywhere."""
    content = canonical(spec, "")
    del content["spec"]["data"]["fingerprint"]
    return _sha256(content)


def _sha256(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
