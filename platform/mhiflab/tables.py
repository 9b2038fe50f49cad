"""Tables from runs, and from nothing else: the same runs give the same bytes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from feinfn.errors import UserError
from feinfn.metrics import HIGHER_IS_BETTER, METRICS
from feinfn.protocols import PROTOCOLS
from mhiflab.plan import Plan
from mhiflab.tracking import IMAGES_FILE, Store, artifact_file
from mhiflab.worker import FUSED, UPSAMPLED

NAMES = {"psnr": "PSNR (dB)", "sam": "SAM (deg)", "ergas": "ERGAS", "ssim": "SSIM"}
DIGITS = {"psnr": 2, "sam": 2, "ergas": 2, "ssim": 4}


@dataclass(frozen=True)
class Results:
    """Per-image metrics of a finished study: one row per case, seed, scene and method."""

    images: pd.DataFrame
    labels: dict[str, str]
    keys: dict[tuple[str, int], str]


def collect(plan: Plan, store: Store) -> Results:
    """Read the per-image tables of all trials from the record.

    Raises `UserError` if a trial has no finished run, or if protocols or conventions are mixed.
    """
    if plan.missing:
        names = ", ".join(f"{e.trial.label} seed {e.trial.spec.seed}" for e in plan.missing[:4])
        raise UserError(
            f"{plan.path}: {len(plan.missing)} of {len(plan.entries)} runs are missing ({names}); "
            f"execute them first: mhiflab run {plan.path}"
        )
    test_sets = {entry.trial.spec.data.test for entry in plan.entries}
    if len(test_sets) != 1:
        raise UserError(
            f"{plan.path}: one table cannot mix test scenes, found {sorted(test_sets)}; use one "
            "data.test for all cases"
        )
    frames = []
    for entry in plan.entries:
        assert entry.run is not None, "a done entry has a run"
        with artifact_file(store, entry.run.info.run_id, IMAGES_FILE) as path:
            # The default parser may differ from the written number in its last bit.
            frame = pd.read_csv(path, float_precision="round_trip")
        frames.append(frame.assign(case=entry.trial.case, seed=entry.trial.spec.seed))
    images = pd.concat(frames, ignore_index=True)
    for column in ("protocol", "convention"):
        found = sorted(images[column].unique())
        if len(found) != 1:
            raise UserError(f"{plan.path}: one table cannot mix {column}s, found {found}")
    labels = {entry.trial.case: entry.trial.label for entry in plan.entries}
    keys = {(e.trial.case, e.trial.spec.seed): e.key for e in plan.entries}
    return Results(images, labels, keys)


def upsampled_label(results: Results) -> str:
    """Return the row name of the upsampled LR-HSI."""
    protocol = PROTOCOLS[results.images["protocol"].iloc[0]]
    return f"{protocol.upsampling.capitalize()} upsampling"


def summary(results: Results) -> pd.DataFrame:
    """Return one row per method: mean and standard deviation over seeds of the mean over images.

    The upsampled LR-HSI has no seed, so its standard deviation is empty. Runs of one protocol must
    agree on it; if they do not, the record is inconsistent and `UserError` is raised.
    """
    images = results.images
    upsampled = images[images["method"] == UPSAMPLED].groupby("scene", sort=True)[list(METRICS)]
    if (upsampled.max() - upsampled.min()).max().max() > 1e-6:
        raise UserError("record: runs disagree on the upsampled LR-HSI of one scene and protocol")
    rows: list[dict[str, object]] = [{"method": upsampled_label(results), "seeds": 0}]
    rows[0] |= {f"{m}_mean": upsampled.first()[m].mean() for m in METRICS}
    for case, label in results.labels.items():
        fused = images[(images["case"] == case) & (images["method"] == FUSED)]
        seeds = fused.groupby("seed", sort=True)[list(METRICS)].mean()
        row: dict[str, object] = {"method": label, "seeds": len(seeds)}
        for m in METRICS:
            row |= {f"{m}_mean": seeds[m].mean(), f"{m}_std": seeds[m].std(ddof=1)}
        rows.append(row)
    return pd.DataFrame(rows)


def _cells(table: pd.DataFrame, plus_minus: str, bold: tuple[str, str]) -> list[list[str]]:
    best = {
        m: table[f"{m}_mean"].max() if HIGHER_IS_BETTER[m] else table[f"{m}_mean"].min()
        for m in METRICS
    }
    lines = []
    for _, row in table.iterrows():
        cells = [str(row["method"])]
        for m in METRICS:
            mean, std = row[f"{m}_mean"], row[f"{m}_std"]
            text = f"{mean:.{DIGITS[m]}f}"
            text = f"{bold[0]}{text}{bold[1]}" if mean == best[m] else text
            cells.append(text if pd.isna(std) else f"{text}{plus_minus}{std:.{DIGITS[m]}f}")
        lines.append(cells)
    return lines


def _header(up: str, down: str) -> list[str]:
    return ["Method", *(f"{NAMES[m]} {up if HIGHER_IS_BETTER[m] else down}" for m in METRICS)]


def _footer(plan: Plan, results: Results) -> list[str]:
    images = results.images
    seeds = ", ".join(str(s) for s in plan.study.seeds)
    scenes = ", ".join(sorted(images["scene"].unique()))
    keys = " ".join(key[:12] for key in results.keys.values())
    return [
        f"Mean and standard deviation over seeds {seeds} of the mean over the test images "
        f"({scenes}).",
        f"Protocol {images['protocol'].iloc[0]}; metric convention {images['convention'].iloc[0]}.",
        f"Runs: {keys}.",
    ]


def markdown(plan: Plan, results: Results) -> str:
    """Return the study's table as Markdown."""
    header = _header("↑", "↓")
    lines = [header, ["---", *["---:"] * len(METRICS)]]
    lines += _cells(summary(results), " ± ", ("**", "**"))
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "  \n".join(_footer(plan, results))
    return f"### {plan.study.title}\n\n{rows}\n\n{notes}\n"


def _tex(text: str) -> str:
    table: dict[str, str | int | None] = {c: f"\\{c}" for c in "&%$#_{}"}
    table |= {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}
    return text.translate(str.maketrans(table))


def latex(plan: Plan, results: Results) -> str:
    """Return the study's table as LaTeX (needs the booktabs package)."""
    cells = _cells(summary(results), r" $\pm$ ", (r"\textbf{", "}"))
    body = "\n".join(" & ".join([_tex(line[0]), *line[1:]]) + r" \\" for line in cells)
    notes = "\n".join(f"% {line}" for line in _footer(plan, results))
    header = " & ".join(_header(r"$\uparrow$", r"$\downarrow$"))
    return (
        f"{notes}\n\\begin{{table}}\n\\centering\n\\caption{{{_tex(plan.study.title)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(METRICS)}}}\n\\toprule\n{header} \\\\\n\\midrule\n"
        f"{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def write_tables(plan: Plan, results: Results, folder: Path) -> list[Path]:
    """Write table.md, table.tex and table.csv and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "table.md": markdown(plan, results),
        "table.tex": latex(plan, results),
        "table.csv": summary(results).to_csv(index=False, lineterminator="\n"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]
