"""Labels: the way people write a metric in tables, sentences and notes; and what is printed."""

from collections.abc import Iterable
from dataclasses import dataclass

METRICS = ("psnr", "sam", "ergas", "ssim")
"""The printed indices, which every test records."""

CONVENTION = "matlab"
"""Convention of every number that does not name another."""


@dataclass(frozen=True)
class Label:
    """Name, decimals, direction and unit of a metric."""

    name: str
    digits: int
    """Decimals in tables and sentences."""
    higher_is_better: bool
    unit: str = ""
    """Unit in headings, such as dB."""
    words: str = ""
    """Unit behind a number in a sentence, with its leading blank."""
    sign: str = ""
    """Unit that stands for the name in notes below pictures."""

    @property
    def heading(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


LABELS = {
    "psnr": Label("PSNR", 2, True, unit="dB", words=" dB", sign=" dB"),
    "sam": Label("SAM", 3, False, unit="deg", words=" degrees", sign="°"),
    "ergas": Label("ERGAS", 3, False),
    "ssim": Label("SSIM", 4, True),
    "rmse": Label("RMSE", 5, False),
    "cc": Label("CC", 4, True),
    "scc": Label("SCC", 4, True),
    "uiqi": Label("UIQI", 4, True),
    "q2n": Label("Q2n", 4, True),
    "d_lambda": Label("D_lambda", 4, False),
    "d_s": Label("D_S", 4, False),
    "qnr": Label("QNR", 4, True),
}
"""The label of every index; what computes them is in `evaluation` and `no_reference`."""


def headings(metrics: Iterable[str]) -> list[str]:
    """Return the headings of columns of metrics, with arrows that point at better values."""
    labels = [LABELS[metric] for metric in metrics]
    return [f"{label.heading} {'↑' if label.higher_is_better else '↓'}" for label in labels]
