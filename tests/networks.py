"""Networks small enough for tests."""

from feinfn.config import ModelConfig

NARROW = ModelConfig(
    feat_dim=4, guide_dim=4, spatial_blocks=1, spectral_blocks=1, mlp_widths=(8,), decoder_width=8
)
"""The narrowest, for tests of what surrounds a network."""

LEARNING = ModelConfig(
    feat_dim=8, guide_dim=8, spatial_blocks=1, spectral_blocks=1, mlp_widths=(16,), decoder_width=16
)
"""Wide enough to learn something in seconds."""
