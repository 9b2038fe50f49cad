"""Learned models behind one interface; a new model takes one file and one entry here.

A model is made from a frozen configuration, kept as `config`. Its `forward(msi_BMHW, lms_BSHW,
lr_hsi_BShw)` returns the fused HSI [B, S, H, W], not clipped.

Legend: B batch, S bands, M MSI bands, h w LR size, H W HR size.
"""

from dataclasses import dataclass
from typing import Any

from feinfn.config import ModelConfig
from feinfn.errors import UserError, nearest, require
from feinfn.fields import Positive, check
from feinfn.methods.classical.registry import CLASSICAL, ClassicalConfig
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.learned.liif import ImplicitConfig, ImplicitFusion
from feinfn.methods.learned.mst import MSTConfig, MSTFusion
from feinfn.methods.learned.restfnet import ResTFNet, ResTFNetConfig
from feinfn.methods.learned.ssrnet import SSRNet, SSRNetConfig
from feinfn.methods.network import Network


@dataclass(frozen=True)
class Entry:
    """A learned model: its name, configuration and network."""

    name: str
    config: type[Any]
    """The dataclass from which `network` is made."""
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
"""The model of configurations without a name: FeINFN's own has none."""


def config_type(name: str, where: str = "model.name") -> type[Any]:
    """Return the configuration type of a learned model or a classical method.

    Raises `UserError` for an unknown name, reported as the value of `where`.
    """
    if name in MODELS:
        return MODELS[name].config
    if name in CLASSICAL:
        return ClassicalConfig
    valid_names = [*MODELS, *CLASSICAL]
    raise UserError(
        f"{where}: found {name!r}, {nearest(str(name), valid_names)}expected "
        + ", ".join(valid_names)
    )


def name_of(config: Any) -> str:
    """Return the name of the model or method to which a configuration belongs."""
    return getattr(config, "name", FEINFN)


def check_parts(
    config: Any, memory_mib: float | None, recompute: bool = False, section: str = ""
) -> None:
    """Raise `UserError` unless the network can work in parts, in a memory > 0; FeINFN can."""
    in_parts = isinstance(config, ModelConfig)
    expected = f"none, because model.name {name_of(config)!r} takes whole images; leave it out"
    require(in_parts or memory_mib is None, f"{section}memory_mib", memory_mib, expected)
    require(in_parts or not recompute, f"{section}recompute", recompute, expected)
    if memory_mib is not None:
        check(f"{section}memory_mib", memory_mib, Positive)


def build(config: Any, memory_mib: float | None = None, recompute: bool = False) -> Network:
    """Return a new network of the model to which the configuration belongs.

    `memory_mib` and `recompute` are those of `FeINFN`. Raises `UserError` for any other
    configuration, and as `check_parts` does.
    """
    check_parts(config, memory_mib, recompute)
    if isinstance(config, ModelConfig):
        return FeINFN(config, memory_mib, recompute)
    for entry in MODELS.values():
        if type(config) is entry.config:
            return entry.network(config)
    raise UserError(
        f"model: found a {type(config).__name__}, expected the configuration of one of "
        + ", ".join(MODELS)
    )
