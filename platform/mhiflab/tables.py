"""Tables from runs, and from nothing else: the same runs give the same bytes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from feinfn.errors import UserError, nearest
from feinfn.metrics import CONVENTION, HIGHER_IS_BETTER
from feinfn.protocols import Protocol
from mhiflab.plan import Plan
from mhiflab.scores import FUSED, UPSAMPLED, WITHOUT_REFERENCE, metrics_of
from mhiflab.tracking import IMAGES_FILE, Store, artifact_file

NAMES = {"psnr": "PSNR (dB)", "sam": "SAM (deg)", "ergas": "ERGAS", "ssim": "SSIM"}
NAMES |= {"d_lambda": "D_lambda", "d_s": "D_S", "qnr": "QNR"}
DIGITS = {"psnr": 2, "sam": 2, "ergas": 2, "ssim": 4, "d_lambda": 4, "d_s": 4, "qnr": 4}
BEST_IS_HIGH = HIGHER_IS_BETTER | {"d_lambda": False, "d_s": False, "qnr": True}


@dataclass(frozen=True)
class Results:
    """Per-image metrics of a finished study: one row per case, seed, scene and method."""

    images: pd.DataFrame
    convention: str
    labels: dict[str, str]
    protocol: Protocol
    keys: dict[tuple[str, int], str]

    @property
    def suffix(self) -> str:
        """What files of another convention than the usual one are named by."""
        return "" if self.convention == CONVENTION else f"-{self.convention}"

    @property
    def metrics(self) -> list[str]:
        """The printed metrics of the table's convention."""
        return list(metrics_of(self.convention))


def collect(plan: Plan, store: Store, convention: str | None = None) -> Results:
    """Read the per-image tables of all trials from the record, in one metric convention.

    By default the usual one, or for real pairs without reference the one that needs none. Raises
    `UserError` if a trial has no finished run, if protocols are mixed, or if a run has no numbers
    in this convention.
    """
    if plan.unfinished:
        missing = plan.unfinished
        names = ", ".join(f"{e.trial.label} seed {e.trial.spec.seed}" for e in missing[:4])
        raise UserError(
            f"{plan.path}: {len(missing)} of {len(plan.entries)} runs are missing ({names}); "
            f"execute them first: mhiflab run {plan.command}"
        )
    test_sets = {entry.trial.spec.data.test for entry in plan.entries}
    if len(test_sets) != 1:
        raise UserError(
            f"{plan.path}: one table cannot mix test scenes, found {sorted(test_sets)}; use one "
            "data.test for all cases"
        )
    protocols = {e.trial.spec.protocol.hash(): e.trial.spec.protocol for e in plan.entries}
    if len(protocols) != 1:
        names = ", ".join(f"{p.name} ({key[:8]})" for key, p in protocols.items())
        raise UserError(
            f"{plan.path}: one table cannot mix protocols, found {names}; make one study for each"
        )
    frames = []
    for entry in plan.entries:
        assert entry.run is not None, "a done entry has a run"
        with artifact_file(store, entry.run.info.run_id, IMAGES_FILE) as path:
            # The default parser may differ from the written number in its last bit.
            frame = pd.read_csv(path, float_precision="round_trip")
        frames.append(frame.assign(case=entry.trial.case, seed=entry.trial.spec.seed))
    images = pd.concat(frames, ignore_index=True)
    images, convention = _in_convention(images, convention, plan)
    labels = {entry.trial.case: entry.trial.label for entry in plan.entries}
    keys = {(e.trial.case, e.trial.spec.seed): e.key for e in plan.entries}
    return Results(images, convention, labels, plan.entries[0].trial.spec.protocol, keys)


def _in_convention(
    images: pd.DataFrame, convention: str | None, plan: Plan
) -> tuple[pd.DataFrame, str]:
    found = list(images["convention"].unique())
    if convention is None:
        convention = CONVENTION if CONVENTION in found else WITHOUT_REFERENCE
    if convention not in found:
        raise UserError(
            f"--convention: found {convention!r}, {nearest(convention, found)}expected one that "
            f"the runs of {plan.path} were evaluated in: " + ", ".join(found)
        )
    chosen = images[images["convention"] == convention].reset_index(drop=True)
    counts = chosen.groupby(["case", "seed"]).size()
    if counts.nunique() != 1 or len(counts) != len(images.groupby(["case", "seed"])):
        raise UserError(
            f"{plan.path}: not every run has all its images in convention {convention}; run the "
            "study again, or use another convention"
        )
    return chosen, convention


def upsampled_label(results: Results) -> str:
    """Return the row name of the upsampled LR-HSI."""
    return f"{results.protocol.upsampling.capitalize()} upsampling"


def summary(results: Results) -> pd.DataFrame:
    """Return one row per method: mean and standard deviation over seeds of the mean over images.

    The upsampled LR-HSI has no seed, so its standard deviation is empty. Runs of one protocol must
    agree on it; if they do not, the record is inconsistent and `UserError` is raised.
    """
    images, metrics = results.images, results.metrics
    upsampled = images[images["method"] == UPSAMPLED].groupby("scene", sort=True)[results.metrics]
    if (upsampled.max() - upsampled.min()).max().max() > 1e-6:
        raise UserError("record: runs disagree on the upsampled LR-HSI of one scene and protocol")
    rows: list[dict[str, object]] = [{"method": upsampled_label(results), "seeds": 0}]
    rows[0] |= {f"{m}_mean": upsampled.first()[m].mean() for m in metrics}
    for case, label in results.labels.items():
        fused = images[(images["case"] == case) & (images["method"] == FUSED)]
        seeds = fused.groupby("seed", sort=True)[results.metrics].mean()
        row: dict[str, object] = {"method": label, "seeds": len(seeds)}
        for m in metrics:
            row |= {f"{m}_mean": seeds[m].mean(), f"{m}_std": seeds[m].std(ddof=1)}
        rows.append(row)
    return pd.DataFrame(rows)


def _cells(
    table: pd.DataFrame, metrics: list[str], plus_minus: str, bold: tuple[str, str]
) -> list[list[str]]:
    best = {
        m: table[f"{m}_mean"].max() if BEST_IS_HIGH[m] else table[f"{m}_mean"].min()
        for m in metrics
    }
    lines = []
    for _, row in table.iterrows():
        cells = [str(row["method"])]
        for m in metrics:
            mean, std = row[f"{m}_mean"], row[f"{m}_std"]
            text = f"{mean:.{DIGITS[m]}f}"
            text = f"{bold[0]}{text}{bold[1]}" if mean == best[m] else text
            cells.append(text if pd.isna(std) else f"{text}{plus_minus}{std:.{DIGITS[m]}f}")
        lines.append(cells)
    return lines


def _header(metrics: list[str], up: str, down: str) -> list[str]:
    return ["Method", *(f"{NAMES[m]} {up if BEST_IS_HIGH[m] else down}" for m in metrics)]


def _footer(plan: Plan, results: Results) -> list[str]:
    images = results.images
    seeds = ", ".join(str(s) for s in plan.study.seeds)
    scenes = ", ".join(sorted(images["scene"].unique()))
    keys = " ".join(key[:12] for key in results.keys.values())
    return [
        f"Mean and standard deviation over seeds {seeds} of the mean over the test images "
        f"({scenes}).",
        f"Protocol {results.protocol.name}; metric convention {results.convention}.",
        f"Runs: {keys}.",
    ]


def markdown(plan: Plan, results: Results) -> str:
    """Return the study's table as Markdown."""
    header = _header(results.metrics, "↑", "↓")
    lines = [header, ["---", *["---:"] * len(results.metrics)]]
    lines += _cells(summary(results), results.metrics, " ± ", ("**", "**"))
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "  \n".join(_footer(plan, results))
    return f"### {plan.study.title}\n\n{rows}\n\n{notes}\n"


def _tex(text: str) -> str:
    table: dict[str, str | int | None] = {c: f"\\{c}" for c in "&%$#_{}"}
    table |= {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}
    return text.translate(str.maketrans(table))


def latex(plan: Plan, results: Results) -> str:
    """Return the study's table as LaTeX (needs the booktabs package)."""
    cells = _cells(summary(results), results.metrics, r" $\pm$ ", (r"\textbf{", "}"))
    body = "\n".join(" & ".join([_tex(line[0]), *line[1:]]) + r" \\" for line in cells)
    notes = "\n".join(f"% {line}" for line in _footer(plan, results))
    heads = _header(results.metrics, r"$\uparrow$", r"$\downarrow$")
    header = " & ".join(head.replace("_", r"\_") for head in heads)
    columns = "l" + "r" * len(results.metrics)
    return (
        f"{notes}\n\\begin{{table}}\n\\centering\n\\caption{{{_tex(plan.study.title)}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{header} \\\\\n\\midrule\n"
        f"{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def frame_table(frame: pd.DataFrame, title: str) -> Table:
    """Return a data frame as a console table, metrics with their usual digits."""
    table = Table(title=escape(title), title_justify="left")
    for column in frame.columns:
        table.add_column(escape(NAMES.get(column, column)), justify="right")
    for _, row in frame.iterrows():
        cells = [
            f"{row[c]:.{DIGITS[c]}f}"
            if c in DIGITS
            else f"{row[c]:g}"
            if isinstance(row[c], float)
            else str(row[c])
            for c in frame.columns
        ]
        table.add_row(*map(escape, cells))
    return table


def write_tables(plan: Plan, results: Results, folder: Path) -> list[Path]:
    """Write Markdown, LaTeX and CSV and return their paths; a convention of its own gets its name.

    The usual convention's files are table.md, table.tex and table.csv.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = results.suffix
    texts = {
        f"table{own}.md": markdown(plan, results),
        f"table{own}.tex": latex(plan, results),
        f"table{own}.csv": summary(results).to_csv(index=False, lineterminator="\n"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]
