"""Power by frequency in the decoder's features, for several cases such as activations."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.analysis.radial import band_centres
from feinfn.analysis.response import frequency_response
from feinfn.errors import UserError
from feinfn.fields import Count
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Images, run_columns
from mhiflab.render.figures.style import legend_above, line_style, new_figure, styled
from mhiflab.render.runs import networks, runs_of_one_seed, trained_feinfn

PANELS = 4
"""Number of features drawn by default."""

FLOOR_DB = -90.0
"""Share of power in dB below which curves are cut."""


@dataclass(frozen=True, kw_only=True)
class Response(Images):
    """Each case's share of power by frequency on the kept part of the first test image."""

    features: tuple[str, ...] = ()
    """Features such as input, filter_1, layer_1, filter_2; empty: the input and first filters."""
    bands: Count = 16
    """Number of radial frequency bands."""

    def draw(self, plan: Plan) -> Drawing:
        curves, rows = {}, []
        at_R = band_centres(self.bands)
        for entry in runs_of_one_seed(plan, self.cases or networks(plan), self.seed):
            window = entry.run.window(self.scene)
            shares = frequency_response(trained_feinfn(entry), window.inputs, self.bands)
            names = self.features or ("input", *(name for name in shares if "filter" in name))
            if missing := [name for name in names if name not in shares]:
                raise UserError(
                    f"option features: found {missing[0]!r}, expected features of case "
                    f"{entry.trial.case}: " + ", ".join(shares)
                )
            columns = run_columns(plan, entry) | {"scene": window.scene}
            curves[columns["label"]] = {name: shares[name] for name in names}
            for name in names:
                values = {"feature": name, "cycles_per_pixel": at_R, "share": shares[name]}
                rows.append(pd.DataFrame(values | columns))
        # Networks of different depth share their first layers.
        features = [name for name in names if all(name in one for one in curves.values())]
        features = features if self.features else features[:PANELS]
        figure = response_figure(at_R, features, curves)
        return figure, pd.concat(rows, ignore_index=True)


@styled
def response_figure(
    frequency_R: np.ndarray,
    features: list[str],
    responses: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
    """Draw share of power by radial frequency in dB, one panel per feature, one line per case.

    `responses` maps cases to features to shares [R].
    """
    figure = new_figure(2.05)
    axes = figure.subplots(1, len(features), sharey=True, squeeze=False)[0]
    for axis, feature in zip(axes, features, strict=True):
        for place, curves in enumerate(responses.values()):
            with np.errstate(divide="ignore"):
                decibels = np.maximum(10 * np.log10(curves[feature]), FLOOR_DB)
            axis.plot(frequency_R, decibels, **line_style(place))
        axis.set_title(feature.replace("_", " "))
        axis.set_xlim(0, 0.5)
        axis.set_xticks([0, 0.25, 0.5], labels=["0", "0.25", "0.5"])
    x = "radial frequency (cycles per pixel; the last band holds the corners)"
    figure.supxlabel(x, fontsize=7)
    axes[0].set_ylabel("share of power in band (dB)")
    legend_above(figure, axes[0].lines, list(responses))
    return figure
