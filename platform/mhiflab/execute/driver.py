"""Drivers: one at a time per lab folder and per study on a server; stop one, and clean up."""

import json
import os
import platform
import re
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from feinfn.errors import UserError
from mhiflab.exclusion import UNNAMED, FileExclusion, Holder, driver_lock
from mhiflab.paths import Lab
from mhiflab.record.store import (
    Store,
    existing_store,
    open_store,
    read_tag,
    trial_runs,
    write_tag,
)
from mhiflab.record.writer import waiting_folders

LEASE, STOP_TAG = "mhiflab.driver", "mhiflab.stop"
"""Tags of a study's run: who holds it, and the request to stop."""

HEARTBEAT_S = 10.0
"""Seconds between renewals of a lease, and between looks for a request to stop."""

EXPIRY_S = 6 * HEARTBEAT_S
"""Age at which a lease expires, because its driver must have died."""


@contextmanager
def only_driver(lab: Lab, study: str) -> Iterator[Holder]:
    """Hold the lab for one driver; raise `UserError` if another driver works in it."""
    driver = Holder(os.getpid(), platform.node(), study, uuid.uuid4().hex)
    lock = driver_lock(lab, driver)
    _take(
        lock,
        f"{lab.root}: another mhiflab run is at work in this folder",
        "wait for it, stop it (mhiflab stop), or choose another folder with --lab",
    )
    earlier_handler = signal.getsignal(signal.SIGTERM)
    take_sigterm_as_ctrl_c()
    try:
        yield driver
    finally:
        signal.signal(signal.SIGTERM, earlier_handler)
        lock.give_back()


def take_sigterm_as_ctrl_c() -> None:
    """Let SIGTERM interrupt this process as Ctrl-C does.

    `mhiflab stop` and batch systems send SIGTERM; processes in a script's background ignore Ctrl-C.
    Ray sets its own handler when it starts, so call this again after that.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def leased(store: Store, parent: str, driver: Holder) -> Iterator[None]:
    """Hold a study on its MLflow server, and renew that; a request to stop arrives as SIGTERM.

    Raises `UserError` if another driver holds the study.
    """
    lease = Lease(store, parent, driver)
    _take(
        lease,
        f"study {driver.study}: another driver is at work on it",
        "wait for it, or stop it (mhiflab stop)",
    )
    done = threading.Event()

    def keep_lease() -> None:
        while not done.wait(HEARTBEAT_S):
            # An outage of the server must not end the training: renew the lease afterwards.
            with suppress(UserError):
                if read_tag(store, parent, STOP_TAG):
                    os.kill(driver.pid, signal.SIGTERM)
                    return
                lease.renew()
                if done.is_set():
                    # The block ended during this renewal: the lease must not outlive it.
                    lease.give_back()

    thread = threading.Thread(target=keep_lease, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        # Do not wait longer: the server may be away.
        thread.join(2)
        with suppress(UserError):
            lease.give_back()


def _take(exclusion: "FileExclusion | Lease", found: str, remedy: str) -> None:
    """Take something; raise `UserError` that names its holder if another process holds it."""
    if not exclusion.take():
        holder = exclusion.holder() or UNNAMED
        raise UserError(f"{found} ({holder.description}); {remedy}")


class Lease:
    """An exclusion of drivers with labs of their own: a study on the server that they share.

    It lies in a tag of the study's run. It is lost a minute after its last renewal, or as soon as
    its holder, if that was a process of this machine, has died. It carries the request to stop.
    """

    def __init__(self, store: Store, parent: str, me: Holder | None = None) -> None:
        self.store, self.parent, self.me = store, parent, me

    def take(self) -> bool:
        """Take it and return True, or return False if another driver holds it."""
        if not self._free():
            return False
        write_tag(self.store, self.parent, STOP_TAG, "")
        self.renew()
        # If two drivers take it at the same moment, the later writer holds it.
        time.sleep(0.5 if self.store.uri.startswith("http") else 0)
        return self._free()

    def renew(self) -> None:
        """Keep it for another minute."""
        assert self.me is not None, "only a holder renews"
        content = {**asdict(self.me), "time": time.time()}
        write_tag(self.store, self.parent, LEASE, json.dumps(content))

    def give_back(self) -> None:
        """Let others take it."""
        write_tag(self.store, self.parent, LEASE, "")

    def holder(self) -> Holder | None:
        """Return the process that holds it, None if it is free."""
        text = read_tag(self.store, self.parent, LEASE)
        if not text:
            return None
        content = json.loads(text)
        renewed_s = content.pop("time")
        holder = Holder(**content)
        dead = holder.host == platform.node() and not psutil.pid_exists(holder.pid)
        return None if dead or time.time() - renewed_s > EXPIRY_S else holder

    def _free(self) -> bool:
        holder = self.holder()
        return holder is None or (self.me is not None and holder.token == self.me.token)


def stop_driver(lab: Lab, store: Store | None, parents: Iterable[str]) -> str:
    """Ask the driver of a study, or of one of several, to stop; return in words what was done.

    A driver on this machine gets SIGTERM; one elsewhere reads the request from its server. Raises
    `UserError` if no driver is at work.
    """
    driver = driver_lock(lab).holder()
    if driver is not None and driver.host == platform.node():
        with suppress(ProcessLookupError):
            os.kill(driver.pid, signal.SIGTERM)
        return f"asked {driver.description} to stop; its trials continue with the next run"
    if store:
        for parent in parents:
            if holder := Lease(store, parent).holder():
                write_tag(open_store(lab, store.uri), parent, STOP_TAG, "true")
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


def leftovers(lab: Lab) -> list[Leftover]:
    """Return states that no run continues from, Ray's folders of ended sweeps, and the cache."""
    store = existing_store(lab)
    runs = trial_runs(store) if store else {}
    waiting = {folder.name for folder in waiting_folders(lab)}
    reasons: dict[Path, str] = {}
    for folder in sorted(lab.states.glob("*")):
        # Remove only what we named after a run key.
        if not re.fullmatch(r"[0-9a-f]{64}", folder.name) or folder.is_symlink():
            continue
        run = runs.get(folder.name)
        if run is None:
            reasons[folder] = "no run on record"
        elif run.info.status == "FINISHED" and folder.name not in waiting:
            reasons[folder] = "its run is finished, and holds the weights"
    reasons |= dict.fromkeys(sorted(lab.ray.glob("*")), "left by an interrupted sweep")
    if lab.cache.is_dir() and not lab.cache.is_symlink():
        reasons[lab.cache] = "scores of upsampled images, made again when needed"
    return [Leftover(folder, _size(folder), why) for folder, why in reasons.items()]


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def remove_leftovers(folders: list[Leftover], lab: Lab) -> None:
    """Remove leftovers; raise `UserError` if a driver is at work in the lab."""
    with only_driver(lab, "gc"):
        for leftover in folders:
            shutil.rmtree(leftover.path)
