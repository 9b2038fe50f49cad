"""The figures of a report, each with what it shows in words."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from feinfn.errors import UserError
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Cases, Images
from mhiflab.render.figures.registry import KINDS, make_drawing
from mhiflab.render.figures.style import png
from mhiflab.render.runs import RecordedStudy

FIGURES_BYTES = 9_000_000
"""What a page's figures may take of it; those after it are named with their command."""

DOTS_PER_CSS_PX = 2

FIGURES: Sequence[tuple[str, str, dict[str, Any], str]] = (
    (
        *("Fused images", "fused", {}),
        "The first test image, a part of it enlarged, and absolute errors averaged over bands, all "
        "on one scale.",
    ),
    ("Spectral angles", "errors", {"map": "sam"}, "The same image, all on one scale."),
    ("Spectra", "spectra", {}, "Chosen pixels of the same image against the reference."),
    ("Training", "curves", {}, "Validation PSNR over optimiser steps."),
    ("Training time", "curves", {"over": "minutes"}, "The same over minutes of training alone."),
    ("Cost", "cost", {}, "Test PSNR against the number of parameters."),
    ("Latent codes", "latent", {}, "Amplitude and phase of the codes of HR-HSI and LR-HSI."),
    ("Gabor wavelet", "gabor", {}, "A decoder's activation in time and frequency."),
    ("Frequency response", "response", {}, "What the decoders' features hold of each frequency."),
    ("Local change", "change", {}, "What one changed frequency does to the whole image."),
)
"""Title, kind, options and caption of every figure of a page."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    title: str
    command: str
    """What follows the study's name in the command that draws it by itself."""
    png: bytes
    caption: str
    alt: str
    """What it shows, for who cannot see it."""

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def width(self) -> int:
        """CSS pixels at which letters of all figures are of one size, that of the page's notes."""
        # The first number of a PNG's header.
        return round(int.from_bytes(self.png[16:20], "big") / DOTS_PER_CSS_PX)


def draw_figures(recorded: RecordedStudy, plan: Plan) -> tuple[list[Picture], list[str]]:
    """Draw what the record of a plan's finished trials holds; say what is not drawn, and why."""
    drawn: list[Picture] = []
    left: list[str] = []
    size = 0
    for title, kind, options, caption in FIGURES:
        try:
            found = make_drawing(kind, options, recorded)
        except UserError as error:
            left.append(f"{title}: {error}")
            continue
        shown, facts = _about(found.numbers)
        command = f"--kind {kind}" + "".join(f" --option {k}={x}" for k, x in options.items())
        one = Picture(
            title,
            command,
            png(found.figure),
            f"{caption} {facts}{_left_out(kind, recorded, plan)}",
            f"{title}: {caption} Shown: {shown}. {facts}",
        )
        if size + len(one.source) > FIGURES_BYTES:
            left.append(too_large(one, recorded.plan))
            continue
        size += len(one.source)
        drawn.append(one)
    return drawn, left


def too_large(one: Picture, plan: Plan) -> str:
    """Return what stands in the place of a picture that makes its page too large."""
    return (
        f"{one.title}: the page would grow too large; draw it by itself: mhiflab figure "
        f"{plan.command} {one.command}"
    )


def _about(numbers: pd.DataFrame) -> tuple[str, str]:
    """Return what a figure's numbers are of: names, and a sentence of image, case and seeds."""
    names = list(numbers["label" if "label" in numbers else "method"].unique())
    facts = [f"image {numbers['scene'].iloc[0]}"] if "scene" in numbers else []
    facts += [f"case {names[0]}"] if len(names) == 1 else []
    if "seed" in numbers:
        seeds = sorted(numbers["seed"].unique())
        facts.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    told = ", ".join(facts)
    return ", ".join(names), told and f"{told[0].upper()}{told[1:]}."


def _left_out(kind: str, recorded: RecordedStudy, plan: Plan) -> str:
    """Return a sentence on the cases without the runs that a kind draws of all of them."""
    options = KINDS[kind].options
    if not issubclass(options, Cases):
        return ""
    # As `of_one_seed` chooses it.
    seed = recorded.plan.entries[0].trial.spec.seed if issubclass(options, Images) else None
    has = {
        entry.trial.case
        for entry in recorded.plan.entries
        if seed in (None, entry.trial.spec.seed) or not entry.trial.spec.trained
    }
    left = [e.trial.label for e in plan.entries if e.trial.case not in has]
    run = "run" if seed is None else f"run of seed {seed}"
    return f" Left out, without a finished {run}: {', '.join(dict.fromkeys(left))}." if left else ""
