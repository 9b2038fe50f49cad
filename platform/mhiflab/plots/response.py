"""Frequencies in the decoder's features under each activation."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import TEXT_IN, legend_above, look, new_figure, styled

FLOOR_DB = -90.0


@styled
def response_figure(
    frequency_R: np.ndarray, responses: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
    """Draw one panel a feature, one line an activation: share of power by radial frequency in dB.

    `responses` maps activations to features to shares [R]; all activations must have the same
    features.
    """
    features = list(next(iter(responses.values())))
    figure = new_figure(TEXT_IN, 2.05)
    axes = figure.subplots(1, len(features), sharey=True, squeeze=False)[0]
    for axis, feature in zip(axes, features, strict=True):
        for place, curves in enumerate(responses.values()):
            power = np.asarray(curves[feature], float)
            with np.errstate(divide="ignore"):
                decibels = np.maximum(10 * np.log10(power), FLOOR_DB)
            axis.plot(frequency_R, decibels, **look(place))
        axis.set_title(feature.replace("_", " "))
        axis.set_xlim(0, 0.5)
        axis.set_xticks([0, 0.25, 0.5], labels=["0", "0.25", "0.5"])
    x = "radial frequency (cycles per pixel; the last band holds the corners)"
    figure.supxlabel(x, fontsize=7)
    axes[0].set_ylabel("share of power in band (dB)")
    legend_above(figure, axes[0].lines, list(responses))
    return figure
