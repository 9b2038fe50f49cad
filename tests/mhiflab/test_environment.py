"""Memory of large arrays: kept by a process for the next ones, unless the user says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from mhiflab.environment import KEEP_MEMORY, MALLOC, forget_malloc, worker_environment

FAULTS = """
import resource, sys
import numpy as np
from mhiflab.environment import keep_memory
if sys.argv[1] == "call":
    keep_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 * 2**17).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
"""A program that prints the page faults of a second array of 64 MiB; a page has 4 KiB or more."""


def faults(how: str, **environment: str) -> int:
    words = [sys.executable, "-c", FAULTS, how]
    given = {k: v for k, v in os.environ.items() if k != KEEP_MEMORY} | environment
    return int(subprocess.run(words, env=given, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other systems keep their own way")
def test_freed_memory_is_kept_in_commands_and_workers_unless_switched_off():
    kept = faults("call"), faults("start", **MALLOC)
    assert max(kept) < 8
    assert faults("call", **{KEEP_MEMORY: "0"}) > 8


def test_workers_are_told_by_the_driver(monkeypatch):
    monkeypatch.delenv(KEEP_MEMORY, raising=False)
    for key in MALLOC:
        monkeypatch.delenv(key, raising=False)
    assert worker_environment().items() >= MALLOC.items()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert worker_environment().keys() & MALLOC == MALLOC.keys() - {"MALLOC_ARENA_MAX"}
    monkeypatch.setenv(KEEP_MEMORY, "0")
    assert not worker_environment().keys() & MALLOC


def test_what_a_worker_starts_inherits_only_what_the_user_set(monkeypatch):
    for key, value in (MALLOC | {"MALLOC_ARENA_MAX": "4"}).items():
        monkeypatch.setenv(key, value)
    forget_malloc()
    assert {k: v for k, v in os.environ.items() if k in MALLOC} == {"MALLOC_ARENA_MAX": "4"}
