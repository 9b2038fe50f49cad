"""The commands `submit` and `doctor`; heavy libraries are imported when they run."""

from typing import Annotated

import typer
from rich.console import Console

from feinfn.errors import UserError

DASHBOARD = "http://127.0.0.1:8265"
out = Console(highlight=False)

AddressOption = Annotated[
    str, typer.Option(help="The cluster's dashboard, usually the near end of a tunnel.")
]
TrackingOption = Annotated[
    str, typer.Option(help="MLflow server of the job; by default the one set on the head.")
]


def submit_command(
    study: Annotated[
        str, typer.Argument(help="A study file, or the name of a shipped study.", metavar="[STUDY]")
    ] = "",
    address: AddressOption = DASHBOARD,
    lab: Annotated[
        str,
        typer.Option(
            help="Lab folder there: an absolute path that all nodes share.", envvar="MHIFLAB_LAB"
        ),
    ] = "",
    tracking_uri: TrackingOption = "",
    attach: Annotated[str, typer.Option(metavar="ID", help="Follow this job.")] = "",
    stop: Annotated[str, typer.Option(metavar="ID", help="Stop this job.")] = "",
) -> None:
    """Run a study on a cluster from here: ship code and study, and follow the job's log.

    Ctrl-C leaves the job alone. Submitting a study that runs already follows it. A job that ended
    early continues when the study is submitted again: finished trials are on record.
    """
    from mhiflab import submit as jobs

    if sum(map(bool, (study, attach, stop))) != 1:
        raise UserError("submit: expected one of STUDY, --attach ID and --stop ID")
    wanted = jobs.run_of(study, lab, tracking_uri) if study else None
    client = jobs.connect(address, out)
    if stop:
        out.print(f"{stop}: {jobs.stop(client, address, stop).lower()}")
        return
    job_id = jobs.submit(client, address, wanted, out) if wanted else attach
    jobs.follow(client, address, job_id, out)
