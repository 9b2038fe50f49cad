"""One driver at a time: who holds a lab folder, the lease of a study on a server, and `stop`.

What lies in a lab folder and is needed by no run: found, told and removed.
"""

import json
import os
import platform
import re
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.record.lab_lock import driver_at_work, lock, lock_file
from mhiflab.record.store import Store, existing_store, read_tag, trial_runs, write_tag

LEASE, STOP_TAG = "mhiflab.driver", "mhiflab.stop"

HEARTBEAT_S = 10.0
"""Seconds between renewals of a lease; also how often a driver looks for a request to stop."""

EXPIRY_S = 6 * HEARTBEAT_S
"""Age at which a lease counts as left behind by a driver that died."""


@dataclass(frozen=True)
class Driver:
    """A driver at work."""

    pid: int
    host: str
    study: str
    token: str

    @property
    def told(self) -> str:
        """The driver as people look for it."""
        return f"process {self.pid} on {self.host}, study {self.study}"


def _read(lab: Lab) -> Driver | None:
    try:
        return Driver(**json.loads(lock_file(lab).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def only_driver(lab: Lab, study: str) -> Iterator[Driver]:
    """Hold the lab for one driver at a time; raise `UserError` where another works in it.

    The system releases the lock with the process, however it ends.
    """
    lab.root.mkdir(parents=True, exist_ok=True)
    # Opened without truncation: the one that holds the lock wrote who it is.
    with lock_file(lab).open("a") as file:
        try:
            lock(file)
        except BlockingIOError:
            other = _read(lab)
            raise UserError(
                f"{lab.root}: another mhiflab run is at work in this folder"
                f"{f' ({other.told})' if other else ''}; wait for it, stop it (mhiflab stop), or "
                "choose another folder with --lab"
            ) from None
        own = Driver(os.getpid(), platform.node(), study, uuid.uuid4().hex)
        file.truncate(0)
        file.write(json.dumps(asdict(own)))
        file.flush()
        before = signal.getsignal(signal.SIGTERM)
        take_sigterm_as_ctrl_c()
        try:
            yield own
        finally:
            signal.signal(signal.SIGTERM, before)
            file.truncate(0)


def take_sigterm_as_ctrl_c() -> None:
    """Let SIGTERM interrupt this process as Ctrl-C does, which a script's background ignores.

    `stop` sends it, and so do systems that run batches. Ray's start brings a handler of its own:
    call this again after it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def leased(store: Store, parent: str, own: Driver) -> Iterator[None]:
    """Hold a study on its MLflow server, for drivers whose labs lie elsewhere.

    A lease is renewed every 10 s and expires after a minute; one left by a dead process of this
    machine is taken at once. A request to stop arrives as SIGTERM. Raises `UserError` where
    another driver holds the study.
    """
    _refuse_other(store, parent, own)
    write_tag(store, parent, STOP_TAG, "")
    _renew(store, parent, own)
    # Of two that take it in the same moment the later writer has it.
    time.sleep(0.5 if store.uri.startswith("http") else 0)
    _refuse_other(store, parent, own)
    done = threading.Event()

    def keep() -> None:
        while not done.wait(HEARTBEAT_S):
            # An outage of the server must not end the training; the lease is renewed after it.
            with suppress(UserError):
                if read_tag(store, parent, STOP_TAG):
                    os.kill(own.pid, signal.SIGTERM)
                    return
                _renew(store, parent, own)
                if done.is_set():
                    # Ended while this renewal was under way: the lease must not outlive it.
                    write_tag(store, parent, LEASE, "")

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        # Not for long: it may be asking a server that is away.
        thread.join(2)
        with suppress(UserError):
            write_tag(store, parent, LEASE, "")


def _renew(store: Store, parent: str, own: Driver) -> None:
    write_tag(store, parent, LEASE, json.dumps({**asdict(own), "time": time.time()}))


def _holder(store: Store, parent: str) -> Driver | None:
    """Return the driver that holds a study, None where it is free or the lease is left behind."""
    text = read_tag(store, parent, LEASE)
    if not text:
        return None
    value = json.loads(text)
    when = value.pop("time")
    holder = Driver(**value)
    dead = holder.host == platform.node() and not _lives(holder.pid)
    return None if dead or time.time() - when > EXPIRY_S else holder


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _refuse_other(store: Store, parent: str, own: Driver) -> None:
    holder = _holder(store, parent)
    if holder is not None and holder.token != own.token:
        raise UserError(
            f"study {own.study}: another driver is at work on it ({holder.told}); wait for it, or "
            "stop it (mhiflab stop)"
        )


def stop_driver(lab: Lab, store: Store | None, parent: str | None) -> str:
    """Ask the driver of a study to stop and return what was done.

    A driver of this machine gets SIGTERM; one elsewhere finds the request on its server.
    """
    own = _read(lab) if driver_at_work(lab) else None
    if own is not None and own.host == platform.node():
        with suppress(ProcessLookupError):
            os.kill(own.pid, signal.SIGTERM)
        return f"asked {own.told} to stop; its trials continue with the next run"
    if store is not None and parent is not None and (holder := _holder(store, parent)):
        write_tag(store, parent, STOP_TAG, "true")
        return f"asked {holder.told} to stop; it looks for that every {HEARTBEAT_S:.0f} s"
    raise UserError(f"{lab.root}: no driver is at work here; nothing to stop")


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
