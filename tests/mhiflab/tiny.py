"""A study small enough to run in seconds."""

TINY: dict = {
    "title": "tiny",
    "base": {
        "model": {
            "feat_dim": 4,
            "guide_dim": 4,
            "spatial_blocks": 1,
            "spectral_blocks": 1,
            "mlp_widths": [8],
            "decoder_width": 8,
            "decoder_layers": 1,
        },
        "train": {"epochs": 2, "batch_size": 2, "patch_px": 32, "stride_px": 64, "lr": 1e-3},
        "resources": {"workers": 0, "memory_mib": 256, "recompute": True},
    },
    "cases": {
        "without": {"label": "without", "set": {"model.fourier_branch": False}},
        "full": {"label": "full", "set": {}},
    },
    "seeds": [1],
}
