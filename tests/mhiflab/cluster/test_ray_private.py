"""Ray's private parts: they exist in the pinned version, and one file alone names them."""

import inspect
import re
import signal
import threading

import pytest
import ray
from places import ROOT
from ray._private import services, utils, worker
from ray._raylet import GcsClient
from ray.train.v2._internal.execution import callback

from feinfn.errors import Preempted
from mhiflab.cluster import ray_private
from mhiflab.cluster.doctor import locked_versions
from mhiflab.cluster.ray_private import (
    deferred,
    delay_sigterm,
    drop_worker_hints,
    free_unlaunched,
    local_address,
    preempted,
)

PRIVATE = re.compile(r"\bray(\.\w+)*\._\w+|\bray\b.*\b_internal\b")


def test_one_file_alone_names_private_parts():
    files = [*(ROOT / "platform").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    naming = [path.name for path in files if PRIVATE.search(path.read_text(encoding="utf-8"))]
    assert naming == ["ray_private.py"]


def test_private_parts_exist_in_the_pinned_version():
    assert ray.__version__ == locked_versions()["ray"]
    assert callable(GcsClient)
    assert "addr" in inspect.signature(services.canonicalize_bootstrap_address).parameters
    for part in ("print_to_stdstream", "global_worker", "_global_node"):
        assert hasattr(worker, part), part
    for part in ("webui_url", "get_session_dir_path"):
        assert hasattr(ray._private.node.Node, part), part
    freed = free_unlaunched()
    for base in (callback.WorkerGroupCallback, callback.ControllerCallback):
        assert isinstance(freed, base)
    own = {name for name in vars(type(freed)) if name.startswith(("after_", "before_"))}
    assert own <= {*dir(callback.WorkerGroupCallback), *dir(callback.ControllerCallback)}
    assert local_address() is None or ":" in local_address()


def test_only_the_hint_of_many_workers_is_dropped(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data: shown.extend(data["lines"]))
    drop_worker_hints()
    worker.print_to_stdstream({"lines": ["8 worker processes have been started on node: 1"]})
    worker.print_to_stdstream({"lines": ["out of memory"]})
    assert shown == ["out of memory"]


def test_handler_that_ray_sets_waits_until_training_has_saved(monkeypatch):
    before, called = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(ray_private, "_sigterm_received", threading.Event())
    monkeypatch.setattr(utils, "set_sigterm_handler", utils.set_sigterm_handler)
    delay_sigterm()
    try:
        utils.set_sigterm_handler(lambda number, frame: called.append("Ray's"))
        with pytest.raises(Preempted), deferred():
            signal.raise_signal(signal.SIGTERM)
        assert preempted()
        assert called == []
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert called == ["Ray's"]


def test_no_cluster_on_this_machine_is_no_error(monkeypatch):
    def refuse(address: str) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(services, "canonicalize_bootstrap_address", refuse)
    assert local_address() is None
