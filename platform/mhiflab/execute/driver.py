"""Drivers: one at a time per lab folder and per study on a server; stop one, and clean up.

Cleaning up removes the files of a lab folder that no run needs.
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
"""Tags of a study's run: who holds it, and the request to stop."""

HEARTBEAT_S = 10.0
"""Seconds between renewals of a lease, and between looks for a request to stop."""

EXPIRY_S = 6 * HEARTBEAT_S
"""Age at which a lease expires, because its driver must have died."""


@dataclass(frozen=True)
class Driver:
    """A driver at work."""

    pid: int
    host: str
    study: str
    token: str

    @property
    def description(self) -> str:
        """Process, host and study in words."""
        return f"process {self.pid} on {self.host}, study {self.study}"


def _read(lab: Lab) -> Driver | None:
    try:
        return Driver(**json.loads(lock_file(lab).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def only_driver(lab: Lab, study: str) -> Iterator[Driver]:
    """Hold the lab for one driver; raise `UserError` if another driver works in it.

    The system releases the lock when the process ends, however it ends.
    """
    lab.root.mkdir(parents=True, exist_ok=True)
    # Opened without truncation, because the holder of the lock wrote its name here.
    with lock_file(lab).open("a") as file:
        try:
            lock(file)
        except BlockingIOError:
            other = _read(lab)
            raise UserError(
                f"{lab.root}: another mhiflab run is at work in this folder"
                f"{f' ({other.description})' if other else ''}; wait for it, stop it (mhiflab "
                "stop), or choose another folder with --lab"
            ) from None
        driver = Driver(os.getpid(), platform.node(), study, uuid.uuid4().hex)
        file.truncate(0)
        file.write(json.dumps(asdict(driver)))
        file.flush()
        earlier_handler = signal.getsignal(signal.SIGTERM)
        take_sigterm_as_ctrl_c()
        try:
            yield driver
        finally:
            signal.signal(signal.SIGTERM, earlier_handler)
            file.truncate(0)


def take_sigterm_as_ctrl_c() -> None:
    """Let SIGTERM interrupt this process as Ctrl-C does.

    `mhiflab stop` and batch systems send SIGTERM; processes in a script's background ignore Ctrl-C.
    Ray sets its own handler when it starts, so call this again after that.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def leased(store: Store, parent: str, driver: Driver) -> Iterator[None]:
    """Hold a study on its MLflow server against drivers with other lab folders.

    The lease is renewed every 10 s and expires after a minute. If its holder was a process of this
    machine that has died, it is taken at once. A request to stop arrives as SIGTERM. Raises
    `UserError` if another driver holds the study.
    """
    _refuse_other(store, parent, driver)
    write_tag(store, parent, STOP_TAG, "")
    _renew(store, parent, driver)
    # If two drivers take it at the same moment, the later writer holds it.
    time.sleep(0.5 if store.uri.startswith("http") else 0)
    _refuse_other(store, parent, driver)
    done = threading.Event()

    def keep_lease() -> None:
        while not done.wait(HEARTBEAT_S):
            # An outage of the server must not end the training: renew the lease afterwards.
            with suppress(UserError):
                if read_tag(store, parent, STOP_TAG):
                    os.kill(driver.pid, signal.SIGTERM)
                    return
                _renew(store, parent, driver)
                if done.is_set():
                    # The block ended during this renewal: the lease must not outlive it.
                    write_tag(store, parent, LEASE, "")

    thread = threading.Thread(target=keep_lease, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        # Do not wait longer: the server may be away.
        thread.join(2)
        with suppress(UserError):
            write_tag(store, parent, LEASE, "")


def _renew(store: Store, parent: str, driver: Driver) -> None:
    write_tag(store, parent, LEASE, json.dumps({**asdict(driver), "time": time.time()}))


def _holder(store: Store, parent: str) -> Driver | None:
    """Return the driver that holds a study; None if it is free or its holder has died."""
    text = read_tag(store, parent, LEASE)
    if not text:
        return None
    lease = json.loads(text)
    renewed_s = lease.pop("time")
    holder = Driver(**lease)
    dead = holder.host == platform.node() and not _lives(holder.pid)
    return None if dead or time.time() - renewed_s > EXPIRY_S else holder


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _refuse_other(store: Store, parent: str, driver: Driver) -> None:
    holder = _holder(store, parent)
    if holder is not None and holder.token != driver.token:
        raise UserError(
            f"study {driver.study}: another driver is at work on it ({holder.description}); wait "
            "for it, or stop it (mhiflab stop)"
        )


def stop_driver(lab: Lab, store: Store | None, parent: str | None) -> str:
    """Ask the driver of a study to stop; return in words what was done.

    A driver on this machine gets SIGTERM; one elsewhere reads the request from its server. Raises
    `UserError` if no driver is at work.
    """
    driver = _read(lab) if driver_at_work(lab) else None
    if driver is not None and driver.host == platform.node():
        with suppress(ProcessLookupError):
            os.kill(driver.pid, signal.SIGTERM)
        return f"asked {driver.description} to stop; its trials continue with the next run"
    if store is not None and parent is not None and (holder := _holder(store, parent)):
        write_tag(store, parent, STOP_TAG, "true")
        return f"asked {holder.description} to stop; it checks every {HEARTBEAT_S:.0f} s"
    raise UserError(f"{lab.root}: no driver is at work here; nothing to stop")


@dataclass(frozen=True)
class Leftover:
    """A folder that can be removed."""

    path: Path
    size: int
    """Bytes."""
    why: str
    """Reason why no run needs it."""


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def leftovers(lab: Lab) -> list[Leftover]:
    """Return training states that no run continues from, and Ray's folders of ended sweeps."""
    store = existing_store(lab)
    runs = trial_runs(store) if store else {}
    removable = []
    for folder in sorted(lab.states.glob("*")):
        # Remove only what we named after a run key.
        if not re.fullmatch(r"[0-9a-f]{64}", folder.name) or folder.is_symlink():
            continue
        run = runs.get(folder.name)
        why = ""
        if run is None:
            why = "no run on record"
        elif run.info.status == "FINISHED" and not (lab.spool / folder.name).exists():
            why = "its run is finished, and holds the weights"
        if why:
            removable.append(Leftover(folder, _size(folder), why))
    sweeps = sorted(lab.ray.glob("*"))
    why = "left by an interrupted sweep"
    return removable + [Leftover(folder, _size(folder), why) for folder in sweeps]


def clear_scratch(lab: Lab) -> None:
    """Remove the files of interrupted sweeps if no driver is at work."""
    if any(lab.ray.glob("*")):
        with suppress(UserError), only_driver(lab, "clearing"):
            for folder in lab.ray.iterdir():
                shutil.rmtree(folder)


def remove_leftovers(folders: list[Leftover], lab: Lab) -> None:
    """Remove leftovers; raise `UserError` if a driver is at work in the lab."""
    with only_driver(lab, "gc"):
        for leftover in folders:
            shutil.rmtree(leftover.path)
