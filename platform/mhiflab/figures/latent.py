"""Amplitude and phase of the latent codes of a test image and of its LR-HSI."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from feinfn.analysis.latent import latent_spectra
from mhiflab.figures.kind import Drawn, Network, about
from mhiflab.plots.latent import latent_figure
from mhiflab.recorded import Recorded


@dataclass(frozen=True, kw_only=True)
class LatentOptions(Network):
    """Options of the latent codes."""

    bands: int = 8
    """Radial frequency bands in which the codes are compared."""


def draw_latent(recorded: Recorded, options: LatentOptions) -> Drawn:
    """Draw what the trained spectral encoder makes of the kept part of the first test image."""
    entry = recorded.network_entry(options.case, options.seed, "a spectral encoder")
    window = recorded.window(entry)
    offset = entry.trial.spec.protocol.offset_px
    found = latent_spectra(recorded.model(entry), window.pair(entry.who), offset, options.bands)
    alike = asdict(found.similarity)
    numbers = pd.DataFrame(alike).rename(columns={"frequency": "cycles_per_lr_pixel"})
    numbers.loc[len(numbers)] = [np.nan, *numbers.iloc[:, 1:].mean()]
    numbers.insert(0, "band", [*range(1, options.bands + 1), "mean"])
    told = about(entry, recorded.labels[entry.trial.case])
    numbers = numbers.assign(**told, scene=window.scene)
    return Drawn(latent_figure(found.panels(), alike["frequency"], alike), numbers)
