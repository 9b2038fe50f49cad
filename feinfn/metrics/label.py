"""Labels: the way people write a metric in tables, sentences and notes; and what is printed."""

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
