"""The two pictures beside a table: errors of one test scene, and validation PSNR over time."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mhiflab.comparison import METRICS
from mhiflab.plan import Plan
from mhiflab.results import Results
from mhiflab.scores import FUSED, UPSAMPLED
from mhiflab.tables import heading
from mhiflab.tracking import QUICKLOOK_FILE, Store, artifact_file, metric_history


def _pictures(plan: Plan, store: Store) -> dict[str, dict[str, np.ndarray]]:
    """Return the pictures of each case's first seed."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for entry in plan.entries:
        if entry.trial.case in found:
            continue
        assert entry.run is not None, "a figure is made of finished runs"
        run_id = entry.run.info.run_id
        with artifact_file(store, run_id, QUICKLOOK_FILE) as path, np.load(path) as arrays:
            found[entry.trial.case] = dict(arrays)
    return found


def error_figure(plan: Plan, results: Results, store: Store, path: Path) -> Path:
    """Draw pseudo-RGB and error maps of one test scene: upsampled and every case.

    The scene is the first test image, the seed each case's first; errors are absolute differences
    in reflectance averaged over bands, on one scale that ends at the 99.5th percentile.
    """
    pictures = _pictures(plan, store)
    first_case = next(iter(pictures))
    scene = results.images["scene"].iloc[0]
    seed = plan.study.seeds[0]
    columns = [(results.upsampled_label, first_case, UPSAMPLED)]
    columns += [(results.labels[case], case, FUSED) for case in pictures]
    # Real pairs without reference have no errors to show.
    errors = {
        i: pictures[c][f"{scene}/{m}/error"].astype(np.float32)
        for i, (_, c, m) in enumerate(columns, 1)
        if f"{scene}/{m}/error" in pictures[c]
    }
    images = results.images

    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "svg.hashsalt": "mhiflab"}):
        count = len(columns) + 1
        figure = Figure(figsize=(1.9 * count + 0.5, 4.6), dpi=200, layout="constrained")
        axes = figure.subplots(2, count, squeeze=False)
        reference = pictures[first_case].get(f"{scene}/reference/rgb")
        if reference is not None:
            axes[0, 0].imshow(reference, interpolation="nearest")
            axes[0, 0].set_title("Reference (pseudo-RGB)")
        else:
            axes[0, 0].set_axis_off()
        axes[1, 0].set_axis_off()
        for i, (label, case, method) in enumerate(columns, 1):
            rows = (images["case"] == case) & (images["method"] == method)
            rows &= (images["scene"] == scene) & (images["seed"] == seed)
            values = images[rows].iloc[0]
            axes[0, i].imshow(pictures[case][f"{scene}/{method}/rgb"], interpolation="nearest")
            axes[0, i].set_title("\n".join(_wrapped(label)))
            if i in errors:
                limit = float(np.percentile(np.stack(list(errors.values())), 99.5))
                shown = axes[1, i].imshow(
                    errors[i], cmap="cividis", vmin=0, vmax=limit, interpolation="nearest"
                )
            lower = axes[1, i] if i in errors else axes[0, i]
            lower.set_xlabel(
                "\n".join(
                    f"{heading(m)} {values[m]:.{METRICS[m].digits}f}" for m in results.metrics[:2]
                )
            )
            if i not in errors:
                axes[1, i].set_axis_off()
        for axis in axes.flat:
            axis.set_xticks([])
            axis.set_yticks([])
        if errors:
            bar = figure.colorbar(shown, ax=axes[1, :].tolist(), fraction=0.03, extend="max")
            bar.set_label("mean absolute error")
        figure.suptitle(f"{scene}, seed {seed}, convention {results.convention}")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without the software entry the file does not depend on matplotlib's version string.
        figure.savefig(path, metadata={"Software": None})
    return path


def curve_figure(plan: Plan, store: Store, path: Path) -> Path:
    """Draw validation PSNR over epochs and over training time, one line a run.

    Runs of one case share a colour; the time is that of training alone, as the run measured it.
    """
    cases = list(dict.fromkeys(entry.trial.case for entry in plan.entries))
    colours = mpl.colormaps["cividis"](np.linspace(0, 0.85, len(cases)))
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8}):
        figure = Figure(figsize=(7, 2.8), dpi=200, layout="constrained")
        by_epoch, by_time = figure.subplots(1, 2, sharey=True)
        named = set()
        for entry in plan.entries:
            assert entry.run is not None, "a figure is made of finished runs"
            history = metric_history(store, entry.run.info.run_id, ("val_psnr", "train_seconds"))
            epochs = sorted(history["val_psnr"])
            if not epochs:
                # A method that is not trained has no curve.
                continue
            psnr = [history["val_psnr"][e] for e in epochs]
            minutes = [history["train_seconds"][e] / 60 for e in epochs]
            case = entry.trial.case
            style = {
                "color": colours[cases.index(case)],
                "linestyle": ("-", "--", "-.", ":")[cases.index(case) % 4],
                "marker": "o",
                "markersize": 2,
                "linewidth": 1,
                "label": None if case in named else entry.trial.label,
            }
            named.add(case)
            by_epoch.plot(epochs, psnr, **style)
            by_time.plot(minutes, psnr, **style)
        by_epoch.set_xlabel("epoch")
        by_time.set_xlabel("training time (minutes)")
        by_epoch.set_ylabel("validation PSNR (dB)")
        if named:
            by_epoch.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    return path


def _wrapped(label: str, width: int = 24) -> list[str]:
    lines: list[str] = []
    for word in label.split():
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
