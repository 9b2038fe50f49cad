"""Jobs on a cluster, from outside it: submit, follow, re-attach, stop."""

import asyncio
import hashlib
import logging
import os
import re
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from feinfn.errors import UserError
from mhiflab.cluster.connect import ANSWER_S
from mhiflab.cluster.package import study_files, write_package
from mhiflab.environment import KEEP_MEMORY

STUDY, LAB, CODE = "mhiflab.study", "mhiflab.lab", "mhiflab.code"
"""Metadata of a job, by which it is found again."""

_CHATTER = re.compile(r"\d{4}-\d\d-\d\d \S+\s+\w+ job_manager\.|Running entrypoint for job ")
"""Ray's own lines at the top of a job's log."""


@dataclass(frozen=True)
class ClusterJob:
    """Job to submit: its command, its files, and its record."""

    name: str
    """The study's name, or `doctor`."""
    lab: str
    command: tuple[str, ...]
    """Arguments after `mhiflab`."""
    files: dict[str, Path]
    """Files beside the code, by their path in the job."""
    tracking_uri: str = ""


def study_job(study: str, lab: str, tracking_uri: str) -> ClusterJob:
    """Return the job that runs a study; raise `UserError` if it cannot work on a cluster."""
    if not lab.startswith("/"):
        raise UserError(
            f"--lab: found {lab!r}, expected an absolute path on storage that all nodes share"
        )
    if "@" in urlsplit(tracking_uri).netloc:
        raise UserError(
            "--tracking-uri: found a user or password, expected neither, because everyone who "
            "sees the job can read them; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD where `ray start` runs"
        )
    name, files = study_files(study)
    command = ("run", name, "--lab", lab)
    return ClusterJob(Path(name).stem, lab, command, files, tracking_uri)


def doctor_job(study: str, lab: str, tracking_uri: str) -> ClusterJob:
    """Return the job that examines a cluster from inside; raise `UserError` as `study_job` does."""
    run = study_job(study or "demo", lab, tracking_uri)
    words = (run.command[1],) if study else ()
    return replace(run, name="doctor", command=("doctor", *words, *run.command[2:]))


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn errors of Ray's client into one `UserError`."""
    import aiohttp
    import requests
    from ray.exceptions import RayError

    try:
        yield
    except UserError:
        raise
    except (RuntimeError, ValueError, OSError, RayError, aiohttp.ClientError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        response = getattr(error, "response", None)
        code = response.status_code if isinstance(response, requests.Response) else 0
        if code in (401, 403) or re.search(
            "status code 40[13]|Unauthorized|[Aa]uth.*token", reason
        ):
            reason = "it refuses this token; copy the cluster's to ~/.ray/auth_token"
        raise UserError(f"--address {address}: {reason}") from None


def connect(address: str, out: Console) -> Any:
    """Return Ray's job client; raise `UserError` within seconds if no dashboard answers."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UserError(
            f"--address: found {address!r}, expected a URL such as http://127.0.0.1:8265"
        )
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), timeout=ANSWER_S).close()
    except OSError as error:
        raise UserError(
            f"--address: no dashboard answers at {address} ({error}); it listens on the head's "
            f"loopback, so tunnel first: ssh -L {port}:127.0.0.1:{port} HEAD"
        ) from None
    if url.scheme == "http" and url.hostname not in ("127.0.0.1", "localhost", "::1"):
        out.print("[yellow]note[/] http sends the token unencrypted: tunnel with ssh -L instead")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.job_submission import JobSubmissionClient

    with _explained(address):
        client = JobSubmissionClient(address)
    # For all loggers, because modules of Ray's client set levels of their own.
    logging.disable(logging.INFO)
    return client


def submit(client: Any, address: str, job: ClusterJob, out: Console) -> str:
    """Submit a job and return its id, or the id of the same job if it runs already."""
    with tempfile.TemporaryDirectory(prefix="mhiflab-") as text, _explained(address):
        folder = Path(text)
        code = write_package(folder, job.files)
        for running in client.list_jobs():
            about = running.metadata or {}
            same = (about.get(STUDY), about.get(LAB)) == (job.name, job.lab)
            if not same or running.status.is_terminal():
                continue
            out.print(f"{job.name} runs there already as [bold]{running.submission_id}[/]")
            if about.get(CODE) != code:
                out.print(
                    "[yellow]note[/] it was submitted with another study file or other code; to "
                    f"run these, stop it first: mhiflab submit --stop {running.submission_id}"
                )
            return running.submission_id
        lab_digest = hashlib.sha256(job.lab.encode()).hexdigest()[:6]
        stem = f"mhiflab-{job.name}-{lab_digest}-"
        # A number in the id, so that Ray refuses one of two submissions at the same moment.
        earlier = [other.submission_id or "" for other in client.list_jobs()]
        numbers = [e.removeprefix(stem) for e in earlier if e.startswith(stem)]
        number = 1 + max((int(n) for n in numbers if n.isdigit()), default=0)
        environment = {"COLUMNS": str(out.width)}
        if job.tracking_uri:
            environment["MLFLOW_TRACKING_URI"] = job.tracking_uri
        if KEEP_MEMORY in os.environ:
            environment[KEEP_MEMORY] = os.environ[KEEP_MEMORY]
        job_id = client.submit_job(
            entrypoint=shlex.join(("python", "-m", "mhiflab", *job.command)),
            submission_id=f"{stem}{number}",
            runtime_env={"working_dir": str(folder), "env_vars": environment},
            metadata={STUDY: job.name, LAB: job.lab, CODE: code},
        )
    out.print(f"submitted [bold]{job_id}[/]")
    return job_id


async def _print_log(client: Any, job_id: str, out: Console) -> None:
    rest = ""
    async for chunk in client.tail_job_logs(job_id):
        *lines, rest = (rest + chunk).split("\n")
        for line in lines:
            if not _CHATTER.match(line):
                out.file.write(line + "\n")
        out.file.flush()
    out.file.write(rest)


def follow(client: Any, address: str, job_id: str, out: Console) -> None:
    """Print a job's log until it ends; raise `UserError` if the job fails or is out of reach."""
    command = f"mhiflab submit --address {address} --attach {job_id}"
    with _explained(address):
        client.get_job_info(job_id)
    try:
        try:
            asyncio.run(_print_log(client, job_id, out))
            status = _settled(client, job_id)
        except KeyboardInterrupt:
            out.print(f"\nThe job goes on. Follow it again:  [bold]{command}[/]", soft_wrap=True)
            raise SystemExit(130) from None
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"--address {address}: the connection was lost ({error}); the job goes on: {command}"
        ) from None
    if status != "SUCCEEDED":
        raise UserError(
            f"job {job_id} {status.lower()}; its log is above, and submitting again continues it"
        )


def _settled(client: Any, job_id: str, seconds: float = 30) -> str:
    """Return a job's final status, which may come some seconds after the end of its log."""
    deadline = time.monotonic() + seconds
    while True:
        status = client.get_job_status(job_id)
        if status.is_terminal() or time.monotonic() > deadline:
            return status.value
        time.sleep(0.3)


def stop(client: Any, address: str, job_id: str) -> str:
    """Stop a job and return its status; finished trials stay on record."""
    with _explained(address):
        client.stop_job(job_id)
        return _settled(client, job_id)
