"""Learned models behind one interface; one more model is one file and one line here.

A model is made from a frozen configuration, kept as `config`, and
`forward(msi_BMHW, lms_BSHW, lr_hsi_BShw)` returns the fused HSI [B, S, H, W], not clipped.
"""

from dataclasses import dataclass
from typing import Any

from feinfn.config import ModelConfig
from feinfn.errors import UserError, nearest
from feinfn.methods.classical.registry import CLASSICAL, ClassicalConfig
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.learned.liif import ImplicitConfig, ImplicitFusion
from feinfn.methods.learned.mst import MSTConfig, MSTFusion
from feinfn.methods.learned.restfnet import ResTFNet, ResTFNetConfig
from feinfn.methods.learned.ssrnet import SSRNet, SSRNetConfig
from feinfn.methods.network import Network


@dataclass(frozen=True)
class Entry:
    """One learned model."""

    name: str
    config: type[Any]
    """The dataclass that `network` is made from."""
    network: type[Network]
    about: str
    source: str


MODELS: dict[str, Entry] = {
    e.name: e
    for e in [
        Entry(
            "feinfn",
            ModelConfig,
            FeINFN,
            "implicit fusion in the image and the Fourier domain",
            "FeINFN, NeurIPS 2024",
        ),
        Entry(
            "implicit",
            ImplicitConfig,
            ImplicitFusion,
            "FeINFN's encoders with LIIF's local ensemble, image domain alone",
            "after Chen et al., CVPR 2021",
        ),
        Entry(
            "ssrnet",
            SSRNetConfig,
            SSRNet,
            "three convolutions: fusion, spatial and spectral edges",
            "Zhang et al., IEEE TGRS 2021",
        ),
        Entry(
            "restfnet",
            ResTFNetConfig,
            ResTFNet,
            "two encoders of residual blocks and one U-shaped decoder",
            "Liu et al., Information Fusion 2020",
        ),
        Entry(
            "mst",
            MSTConfig,
            MSTFusion,
            "U-shaped transformer with attention between channels",
            "after Cai et al., CVPR 2022",
        ),
    ]
}
"""Every learned model by name."""

FEINFN = "feinfn"
"""The model that is meant where none is named; its own configuration has no name."""


def config_type(name: str, where: str = "model.name") -> type[Any]:
    """Return the configuration of a learned model or a classical method by its name.

    Raises `UserError` for an unknown name, told as the value of `where`.
    """
    if name in MODELS:
        return MODELS[name].config
    if name in CLASSICAL:
        return ClassicalConfig
    known = [*MODELS, *CLASSICAL]
    raise UserError(
        f"{where}: found {name!r}, {nearest(str(name), known)}expected " + ", ".join(known)
    )


def name_of(config: Any) -> str:
    """Return the name of the model or method that a configuration belongs to."""
    return getattr(config, "name", FEINFN)


def build(config: Any) -> Network:
    """Return a new network of the model that the configuration belongs to.

    Raises `UserError` for a configuration of no model.
    """
    for entry in MODELS.values():
        if type(config) is entry.config:
            return entry.network(config)
    raise UserError(
        f"model: found a {type(config).__name__}, expected the configuration of one of "
        + ", ".join(MODELS)
    )
