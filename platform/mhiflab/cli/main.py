"""The `mhiflab` command: its groups, and one line an error."""

import sys
from collections.abc import Callable
from typing import Annotated

from rich.console import Console
from rich.markup import escape
from typer import Option, Typer

from feinfn.errors import UserError
from mhiflab.cli.cluster import doctor, submit, ui
from mhiflab.cli.compare import compare, describe, robustness
from mhiflab.cli.data import data_app
from mhiflab.cli.evaluate import evaluate
from mhiflab.cli.fuse import fuse
from mhiflab.cli.render import export, figure, report, table, verify
from mhiflab.cli.study import demo, gc, plan, retry, run, status, stop, sync

GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Study: say what you want to know, and run what is missing": (
        demo,
        plan,
        run,
        retry,
        status,
        stop,
        sync,
        gc,
    ),
    "Render: tables and figures from recorded runs alone": (table, figure, report, verify, export),
    "Compare: look closer at runs and networks": (compare, robustness, describe),
    "Use: a trained network, or any fused image": (fuse, evaluate),
    "Cluster: run elsewhere, and look at the record": (submit, doctor, ui),
}
DATA = "Data: look at scenes, prepare and identify them"

app = Typer(
    help="A laboratory for hyperspectral image fusion around FeINFN.\n\n"
    "A study (YAML) lists cases and seeds; [bold]plan[/] shows which runs it still needs, "
    "[bold]run[/] makes exactly those on this machine or a Ray cluster, and [bold]table[/] renders "
    "from the recorded runs alone. Start with [bold]mhiflab demo[/].",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group, commands in GROUPS.items():
    for command in commands:
        app.command(rich_help_panel=group)(command)
app.add_typer(data_app, name="data", rich_help_panel=DATA)


@app.callback()
def _root(
    debug: Annotated[
        bool, Option("--debug", help="Show Python tracebacks instead of one-line errors.")
    ] = False,
) -> None:
    """Options before the command; `--debug` is also taken anywhere else."""


def main() -> None:
    """Run the command: one line per error and exit code 1, unless --debug."""
    from mhiflab.environment import keep_memory, quieten

    debug = "--debug" in sys.argv
    quieten()
    keep_memory()
    try:
        app([word for word in sys.argv[1:] if word != "--debug"])
    except Exception as error:
        if debug:
            raise
        expected = isinstance(error, UserError)
        text = str(error) if expected else f"unexpected {type(error).__name__}: {error}"
        hint = "" if expected else " (--debug shows where)"
        Console(stderr=True, highlight=False).print(
            f"[bold red]error:[/] {escape(text + hint)}", soft_wrap=True
        )
        sys.exit(1)
