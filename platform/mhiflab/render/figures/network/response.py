"""Power by frequency in the decoder's features, for several cases such as activations."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.analysis.radial import band_centres
from feinfn.analysis.response import frequency_response
from feinfn.errors import UserError
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Images, run_columns
from mhiflab.render.figures.style import TEXT_IN, legend_above, line_style, new_figure, styled
from mhiflab.render.runs import networks, runs_of_one_seed, trained_feinfn

PANELS = 4
"""Number of features drawn by default."""


@dataclass(frozen=True, kw_only=True)
class ResponseOptions(Images):
    """Options of the frequency responses."""

    features: tuple[str, ...] = ()
    """Features such as input, filter_1, layer_1, filter_2; empty: the input and first filters."""
    bands: int = 16
    """Number of radial frequency bands."""


def draw_response(plan: Plan, options: ResponseOptions) -> Drawing:
    """Draw each case's share of power by frequency on the kept part of the first test image."""
    cases = options.cases or networks(plan)
    entries = runs_of_one_seed(plan, cases, options.seed)
    curves, rows = {}, []
    at_R = band_centres(options.bands)
    for entry in entries:
        label = plan.labels[entry.trial.case]
        window = entry.run.window(options.scene)
        shares = frequency_response(trained_feinfn(entry), window.inputs, options.bands)
        names = options.features or ("input", *(name for name in shares if "filter" in name))
        for name in names:
            if name not in shares:
                raise UserError(
                    f"option features: found {name!r}, expected features of case "
                    f"{entry.trial.case}: " + ", ".join(shares)
                )
        curves[label] = {name: shares[name] for name in names}
        columns = run_columns(entry, label) | {"scene": window.scene}
        rows += [
            pd.DataFrame({"feature": name, "cycles_per_pixel": at_R, "share": share}).assign(
                **columns
            )
            for name, share in curves[label].items()
        ]
    # Networks of different depth share their first layers.
    common = [
        name for name in next(iter(curves.values())) if all(name in c for c in curves.values())
    ]
    common = common if options.features else common[:PANELS]
    drawn_curves = {
        label: {name: shares[name] for name in common} for label, shares in curves.items()
    }
    return Drawing(response_figure(at_R, drawn_curves), pd.concat(rows, ignore_index=True))


FLOOR_DB = -90.0
"""Share of power in dB below which curves are cut."""


@styled
def response_figure(
    frequency_R: np.ndarray, responses: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
    """Draw share of power by radial frequency in dB, one panel per feature, one line per case.

    `responses` maps cases to features to shares [R]; all cases must have the same features.
    """
    features = list(next(iter(responses.values())))
    figure = new_figure(TEXT_IN, 2.05)
    axes = figure.subplots(1, len(features), sharey=True, squeeze=False)[0]
    for axis, feature in zip(axes, features, strict=True):
        for place, curves in enumerate(responses.values()):
            power = np.asarray(curves[feature], float)
            with np.errstate(divide="ignore"):
                decibels = np.maximum(10 * np.log10(power), FLOOR_DB)
            axis.plot(frequency_R, decibels, **line_style(place))
        axis.set_title(feature.replace("_", " "))
        axis.set_xlim(0, 0.5)
        axis.set_xticks([0, 0.25, 0.5], labels=["0", "0.25", "0.5"])
    x = "radial frequency (cycles per pixel; the last band holds the corners)"
    figure.supxlabel(x, fontsize=7)
    axes[0].set_ylabel("share of power in band (dB)")
    legend_above(figure, axes[0].lines, list(responses))
    return figure
