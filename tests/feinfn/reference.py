"""Where the reference values of the released network and metric package lie."""

from pathlib import Path

import numpy as np

from feinfn.config import ModelConfig

GOLDENS = Path(__file__).parent / "goldens"
SMALL = ModelConfig(feat_dim=32, guide_dim=32, mlp_widths=(64, 32))


def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one golden file."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        return dict(file)
