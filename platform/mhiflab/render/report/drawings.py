"""Figures of a report, each with a description in words."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from feinfn.errors import UserError
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Cases, Images
from mhiflab.render.figures.registry import find_kind, make_drawing
from mhiflab.render.figures.style import figure_bytes

FIGURES_BYTES = 6_500_000
"""Largest size of all figures of a page; those beyond are replaced by their command."""

DOTS_PER_CSS_PX = 2
"""Dots of a picture per CSS pixel."""

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


def draw_figures(done: Plan, plan: Plan, share: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Draw the figures that finished runs allow; return them, and the reasons for missing ones.

    They take at most a share of `FIGURES_BYTES`.
    """
    pictures: list[dict[str, Any]] = []
    undrawn: list[str] = []
    size = 0
    for title, kind, options, caption in FIGURES:
        try:
            figure, numbers = make_drawing(kind, options, done)
        except UserError as error:
            undrawn.append(f"{title}: {error}")
            continue
        labels, facts = _labels_and_facts(numbers)
        png = figure_bytes(figure)
        picture = {
            "title": title,
            "png": png,
            "caption": f"{caption} {facts}{_left_out(kind, done, plan)}",
            # For readers who cannot see it.
            "alt": f"{title}: {caption} Shown: {labels}. {facts}",
            # In CSS pixels, at which letters are as large as the page's notes, in all figures; a
            # PNG's header begins with its width.
            "width": round(int.from_bytes(png[16:20], "big") / DOTS_PER_CSS_PX),
        }
        size += len(png)
        if size > share * FIGURES_BYTES:
            command = f"{plan.command} --kind {kind}"
            command += "".join(f" --option {k}={x}" for k, x in options.items())
            undrawn.append(
                f"{title}: the page would grow too large; draw it by itself: mhiflab figure "
                + command
            )
        else:
            pictures.append(picture)
    return pictures, undrawn


def _labels_and_facts(numbers: pd.DataFrame) -> tuple[str, str]:
    """Return the labels of a figure's numbers, and a sentence on image, case and seeds."""
    names = list(numbers["label" if "label" in numbers else "method"].unique())
    facts = [f"image {numbers['scene'].iloc[0]}"] if "scene" in numbers else []
    facts += [f"case {names[0]}"] if len(names) == 1 else []
    if "seed" in numbers:
        seeds = sorted(numbers["seed"].unique())
        facts.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    sentence = ", ".join(facts)
    return ", ".join(names), sentence and f"{sentence[0].upper()}{sentence[1:]}."


def _left_out(kind: str, done: Plan, plan: Plan) -> str:
    """Return a sentence on the cases that a figure leaves out, as they have no finished run."""
    figure_kind = find_kind(kind)
    if not issubclass(figure_kind, Cases):
        return ""
    # The default seed of `runs_of_one_seed`.
    seed = done.entries[0].trial.spec.seed if issubclass(figure_kind, Images) else None
    drawn_cases = {
        entry.trial.case for entry in done.entries if seed is None or entry.is_of([seed])
    }
    labels = [e.trial.label for e in plan.entries if e.trial.case not in drawn_cases]
    run = "run" if seed is None else f"run of seed {seed}"
    return (
        f" Left out, without a finished {run}: {', '.join(dict.fromkeys(labels))}."
        if labels
        else ""
    )
