"""One driver at a time: on a lab folder, and on a study whose record several labs share."""

import fcntl
import json
import os
import signal
import threading
import time
from dataclasses import asdict

import pytest

from feinfn.errors import UserError
from mhiflab.exclusion import FileExclusion, Holder, driver_lock
from mhiflab.execute import driver
from mhiflab.execute.driver import LEASE, STOP_TAG, Lease, leased, only_driver, stop_driver
from mhiflab.paths import Lab
from mhiflab.record.store import open_store, read_tag, tracking_uri, write_tag
from mhiflab.record.studies import study_run


@pytest.fixture
def shared(tmp_path):
    """Return a store, and the id of a study's run in it."""
    lab = Lab(tmp_path / "lab")
    store = open_store(lab, tracking_uri(lab))
    return store, study_run(store, "tiny", "")


@pytest.mark.parametrize("kind", ["file", "lease"])
def test_exclusion_has_one_holder_who_is_named_and_gives_it_back(kind, shared, tmp_path):
    store, parent = shared
    first = Holder(os.getpid(), "one", "a", "1")
    second = Holder(os.getpid(), "two", "b", "2")

    def exclusion(me: Holder | None = None) -> FileExclusion | Lease:
        if kind == "lease":
            return Lease(store, parent, me)
        return FileExclusion(tmp_path / "deep" / "folder" / "lock", 0.0, me)

    one, two, nobody = exclusion(first), exclusion(second), exclusion()
    assert nobody.holder() is None
    assert one.take()
    if isinstance(one, Lease):
        one.renew()
    assert not two.take()
    assert nobody.holder() == one.holder() == first
    one.give_back()
    assert nobody.holder() is None
    assert two.take()
    assert nobody.holder() == second
    two.give_back()


def test_lock_names_its_holder_and_ends_with_it(tmp_path):
    lab = Lab(tmp_path)
    with (
        only_driver(lab, "first"),
        pytest.raises(UserError, match=r"at work in this folder \(process \d+ on .*, study first"),
    ):
        only_driver(lab, "second").__enter__()
    with only_driver(lab, "second"):
        pass


def test_one_who_only_looks_keeps_no_driver_away(tmp_path, monkeypatch):
    lab, lock = Lab(tmp_path), fcntl.flock
    with only_driver(lab, "first"):
        holder = driver_lock(lab).holder()
        assert holder is not None
        assert (holder.pid, holder.study) == (os.getpid(), "first")
    assert driver_lock(lab).holder() is None
    looking = threading.Event()

    def look(file, kind: int) -> None:
        """Lock as before, but let go of a shared lock only after a moment."""
        lock(file, kind)
        if kind & fcntl.LOCK_SH:
            looking.set()
            time.sleep(0.2)

    monkeypatch.setattr(fcntl, "flock", look)
    thread = threading.Thread(target=driver_lock(lab).holder)
    thread.start()
    looking.wait()
    with only_driver(lab, "second"):
        pass
    thread.join()


def test_second_lab_is_refused_a_study_that_another_holds(shared):
    store, parent = shared
    elsewhere = Holder(1, "elsewhere", "tiny", "a")
    here = Holder(os.getpid(), "here", "tiny", "b")
    with (
        leased(store, parent, elsewhere),
        pytest.raises(UserError, match=r"another driver is at work on it \(process 1 on elsewhere"),
    ):
        leased(store, parent, here).__enter__()
    with leased(store, parent, here):
        assert json.loads(read_tag(store, parent, LEASE))["token"] == "b"
    assert read_tag(store, parent, LEASE) == ""


@pytest.mark.parametrize("left", ["expired", "of a dead process of this machine"])
def test_lease_that_was_left_behind_is_taken(left, shared, monkeypatch):
    store, parent = shared
    monkeypatch.setattr(driver.platform, "node", lambda: "here")
    dead = Holder(2**22 + 1, "here" if "dead" in left else "elsewhere", "tiny", "a")
    age = 0.0 if "dead" in left else driver.EXPIRY_S + 1
    write_tag(store, parent, LEASE, json.dumps({**asdict(dead), "time": time.time() - age}))
    with leased(store, parent, Holder(os.getpid(), "here", "tiny", "b")):
        pass


def test_renewal_that_arrives_after_the_end_leaves_no_lease(shared, monkeypatch):
    store, parent = shared
    monkeypatch.setattr(driver, "HEARTBEAT_S", 0.01)
    renew, held, free = Lease.renew, threading.Event(), threading.Event()

    def late(*args) -> None:
        if threading.current_thread().name == "lease":
            held.set()
            free.wait(60)
        renew(*args)

    monkeypatch.setattr(Lease, "renew", late)
    with leased(store, parent, Holder(os.getpid(), "elsewhere", "tiny", "a")):
        assert held.wait(60)
        (thread,) = (one for one in threading.enumerate() if one.name == "lease")
    free.set()
    thread.join(60)
    assert read_tag(store, parent, LEASE) == ""


def test_request_to_stop_reaches_a_driver_through_the_record(shared, tmp_path, monkeypatch):
    store, parent = shared
    monkeypatch.setattr(driver, "HEARTBEAT_S", 0.1)
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        own = Holder(os.getpid(), "elsewhere", "tiny", "a")
        with leased(store, parent, own):
            told = stop_driver(Lab(tmp_path / "another"), store, [parent])
            assert "asked process" in told
            deadline = time.monotonic() + 120
            while not asked.is_set() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert asked.is_set()
        # The next driver starts without it.
        with leased(store, parent, own):
            assert read_tag(store, parent, STOP_TAG) == ""
    finally:
        signal.signal(signal.SIGTERM, before)


def test_stop_without_a_driver_says_so(tmp_path):
    with pytest.raises(UserError, match="no driver is at work here"):
        stop_driver(Lab(tmp_path), None, [])
