"""Commands of the cluster and of the record: submit, doctor, ui."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from feinfn.errors import UserError
from mhiflab.cli import options
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, Lab, study_name, study_path

TrackingOption = Annotated[
    str, Option(help="MLflow server of the job (default: the one set on the head).")
]


def submit(
    study: Annotated[
        str,
        Argument(
            help="The file of a study or a paper, or the name of a shipped one.", metavar="[STUDY]"
        ),
    ] = "",
    address: Annotated[
        str, Option(help="The cluster's dashboard, usually the near end of a tunnel.")
    ] = "http://127.0.0.1:8265",
    lab: Annotated[
        str,
        Option(
            help="Lab folder there: an absolute path that all nodes share.", envvar="MHIFLAB_LAB"
        ),
    ] = "",
    tracking_uri: TrackingOption = "",
    attach: Annotated[str, Option(metavar="ID", help="Follow this job.")] = "",
    stop: Annotated[str, Option(metavar="ID", help="Stop this job.")] = "",
) -> None:
    """Run a study or a paper on a cluster from here: ship code and study, and follow the job's log.

    Ctrl-C leaves the job alone. Submitting a study that runs already follows it. A job that ended
    early continues when the study is submitted again: finished trials are on record.
    """
    from mhiflab.cluster import submit as jobs

    if sum(map(bool, (study, attach, stop))) != 1:
        raise UserError("submit: expected one of STUDY, --attach ID and --stop ID")
    job = jobs.study_job(study, lab, tracking_uri) if study else None
    client = jobs.connect(address, out)
    if stop:
        out.print(f"{stop}: {jobs.stop(client, address, stop).lower()}")
        return
    job_id = jobs.submit(client, address, job, out) if job else attach
    jobs.follow(client, address, job_id, out)


def doctor(
    study: Annotated[
        str, Argument(help="Also check the data of this study or paper.", metavar="[STUDY]")
    ] = "",
    address: Annotated[
        str,
        Option(
            help="Dashboard (http://...) of a cluster, or HOST:PORT from one of its nodes "
            "(default: RAY_ADDRESS, else this machine)."
        ),
    ] = "",
    lab: Annotated[
        str, Option(help="Lab folder that all nodes share.", envvar="MHIFLAB_LAB")
    ] = "lab",
    tracking_uri: TrackingOption = "",
    migrate: Annotated[
        bool,
        Option(
            "--migrate",
            help="Only migrate the record, if an older MLflow made it; a backup stays beside it.",
        ),
    ] = False,
) -> None:
    """Check every node of a cluster, or this machine: versions, code, storage, data, GPUs, ports.

    Names each problem and its remedy. The exit code is 1 if there is one.
    """
    from mhiflab.cluster import submit as jobs

    if migrate:
        _migrate(lab, tracking_uri, address or study)
        return
    if address.startswith("http"):
        job, client = jobs.doctor_job(study, lab, tracking_uri), jobs.connect(address, out)
        jobs.follow(client, address, jobs.submit(client, address, job, out), out)
        return
    if address:
        os.environ["RAY_ADDRESS"] = address
    if tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    from mhiflab.cluster.doctor import examine
    from mhiflab.grid import Cell, Grid, texts

    findings = examine(Lab(Path(lab)), study_path(study) if study else None, out.print)
    rows = []
    for one in findings:
        verdict = Cell(one.fix or "ok", "failed" if one.fix else "done")
        rows.append([*texts(one.node, one.check, one.found), verdict])
    out.print(Grid(("node", "check", "found", "to do"), rows))
    if wrong := sum(bool(finding.fix) for finding in findings):
        raise UserError(f"{wrong} of {len(findings)} checks failed; the table says what to do")


def _migrate(lab: str, tracking_uri: str, unused: str) -> None:
    from mhiflab.record import store
    from mhiflab.record.database.condition import database_file
    from mhiflab.record.database.errors import without_passwords

    if unused:
        raise UserError(
            f"doctor: found --migrate with {unused!r}, expected it with --lab or --tracking-uri "
            "alone; run it on a machine that reaches the record"
        )
    if tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    uri = store.tracking_uri(Lab(Path(lab)))
    if database_file(uri) is None:
        raise UserError(
            f"--migrate: found the record {without_passwords(uri)}, expected an SQLite file; let "
            "whoever keeps it migrate it, after a backup: mlflow db upgrade URI"
        )
    out.print(store.migrate_record(Lab(Path(lab))) or "nothing to migrate", soft_wrap=True)


def ui(
    study: Annotated[
        str,
        Argument(
            help="Only print the address that shows the runs of this study or paper, by case.",
            metavar="[STUDY]",
        ),
    ] = "",
    smoke: options.SmokeOption = False,
    browse: Annotated[
        bool, Option("--open", help="Open the study's address in a browser.")
    ] = False,
    lab: options.LabOption = DEFAULT_LAB,
    port: Annotated[int, Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on the lab's record, on this machine only (127.0.0.1)."""
    from mhiflab.record import studies
    from mhiflab.record.database.errors import without_passwords
    from mhiflab.record.store import open_store, recorded_store

    folder = Lab(lab)
    store = recorded_store(folder)
    uri, on_server = store.uri, store.uri.startswith("http")
    server = without_passwords(uri) if on_server else f"http://127.0.0.1:{port}"
    for file in options.study_files(study) if study else ():
        address = studies.study_address(store, study_name(file, smoke), server)
        out.print(address, markup=False, soft_wrap=True)
        if browse:
            webbrowser.open(address)
    if study:
        return
    if on_server:
        out.print(f"The record is on a server with a UI of its own: [bold]{server}[/]")
        return
    # For MLflow itself, the record of a moved lab must name the artifacts beside it.
    open_store(folder, uri)
    address = studies.experiment_address(store, server)
    out.print(f"MLflow UI on [bold]{address}[/] (Ctrl-C ends it)", soft_wrap=True)
    # In the environment, because every user of a machine sees the words of a command.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    words = ["server", "--artifacts-destination", str(folder.artifacts.resolve())]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    # In place of this process, so that whoever ends it ends the server.
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *words], environment)  # noqa: S606
