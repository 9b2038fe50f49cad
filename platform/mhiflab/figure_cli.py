"""The `figure` command; heavy libraries are imported when it runs."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.paths import HERE, Lab, study_path
from mhiflab.plan.plan import plan_with_store
from mhiflab.render.study import print_undrawn
from mhiflab.study_cli import LabOption, RecordOption, SmokeOption, StudyArgument

ALL = "all"
TEXTS = ("scene", "case")
"""Options that are names, even where they look like numbers."""


def _parsed(words: list[str]) -> dict[str, Any]:
    """Return options given as key=value, values in YAML; raise `UserError` for anything else."""
    import yaml

    from mhiflab.study.yaml_values import Loader

    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals) or key in found:
            raise UserError(
                f"--option: found {word!r}, expected key=value, each key once, such as "
                "seed=2 or 'cases=[full, without]'"
            )
        try:
            # S506 guards against unsafe loaders; these two build none but plain values.
            found[key] = yaml.load(text, Loader=Loader)  # noqa: S506
            if key in TEXTS and found[key] is not None:
                found[key] = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--option {key}: found {text!r}, not YAML: {reason}") from None
    return found


def figure(
    study: StudyArgument,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Of a study: fused, spectra, curves, cost, latent, gabor, response, change, "
            "errors, or all."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Of a paper: this figure; repeat for more, none for all."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a study: key=value, such as seed=2 or 'cases=[full, without]'; repeatable."
        ),
    ] = None,
    smoke: SmokeOption = False,
    record: RecordOption = None,
    lab: LabOption = HERE,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Of a study: folder of the files; lab/rendered by default."),
    ] = None,
    format_: Annotated[
        Literal["png", "pdf", "both"] | None,
        typer.Option("--format", help="Of a study: png, pdf, or both by default."),
    ] = None,
) -> None:
    """Draw figures of a study or a paper from recorded runs: PNG, PDF, and the numbers (CSV).

    Every number comes from artifacts and histories of runs; scenes are read only to identify them.
    `--kind all` draws what the records allow and says why not of the rest. Options of a kind: an
    unknown one is answered by the list. The same runs give the same bytes.
    """
    from mhiflab.study.yaml_values import is_paper

    path = study_path(study)
    if is_paper(path):
        from mhiflab.render.paper import draw_paper

        study_only = {"--kind": kind, "--option": option, "--out": folder, "--format": format_}
        if given := [word for word, value in study_only.items() if value]:
            beside = Lab(lab).rendered_of(path, smoke)
            raise UserError(
                f"{', '.join(given)}: found with {path}, a paper, whose file says what is drawn "
                f"and whose figures lie with its tables in {beside}, expected --name or nothing; "
                "leave it out"
            )
        draw_paper(path, smoke, Lab(lab), name or (), record)
        return
    if name or not kind:
        raise UserError(
            f"--name, --kind: {path} is a study, expected --kind without --name, such as --kind "
            "fused, or --kind all"
        )
    options = _parsed(option or [])
    if kind == ALL and options:
        raise UserError(f"--option: found {', '.join(options)}, expected none with --kind all")

    from mhiflab.render.figures.registry import FORMATS, KINDS, draw_each, find_kind
    from mhiflab.render.runs import Recorded

    kinds = list(KINDS) if kind == ALL else [kind]
    if kind != ALL:
        find_kind(kind)
    formats = FORMATS if format_ in (None, "both") else (format_,)
    with plan_with_store(path, smoke, Lab(lab), record) as (plan, store):
        place = folder or Lab(lab).rendered(plan.name)
        drawn, left = draw_each(kinds, options, Recorded(plan, store), place, formats)
    if not drawn:
        raise next(iter(left.values()))
    for one, written in drawn.items():
        out.print(f"{one:8} " + escape("  ".join(map(str, written))), soft_wrap=True)
    print_undrawn(left)
