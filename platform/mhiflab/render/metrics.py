"""Metrics as tables and sentences write them: name, unit, decimals, direction."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """Name, unit, decimals and direction of a metric."""

    name: str
    unit: str
    """With a leading blank; empty without a unit."""
    digits: int
    """Decimals in tables and sentences."""
    higher_is_better: bool


METRICS = {
    "psnr": Metric("PSNR", " dB", 2, True),
    "sam": Metric("SAM", " degrees", 3, False),
    "ergas": Metric("ERGAS", "", 3, False),
    "ssim": Metric("SSIM", "", 4, True),
    "rmse": Metric("RMSE", "", 5, False),
    "cc": Metric("CC", "", 4, True),
    "scc": Metric("SCC", "", 4, True),
    "uiqi": Metric("UIQI", "", 4, True),
    "q2n": Metric("Q2n", "", 4, True),
    "d_lambda": Metric("D_lambda", "", 4, False),
    "d_s": Metric("D_S", "", 4, False),
    "qnr": Metric("QNR", "", 4, True),
}
