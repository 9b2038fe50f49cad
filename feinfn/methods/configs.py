"""Configurations of all methods by name; they need neither torch nor the methods themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from feinfn.config import ModelConfig
from feinfn.errors import UserError, require, require_one_of
from feinfn.fields import Count, Counts, Positive, check
from feinfn.physics import Consistent, Physics
from feinfn.protocols.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Physics):
    """Configuration of a network besides FeINFN; subclasses add a name and further sizes.

    The name is a field, so that a spec and a weights file state the model to which they belong.
    """


@dataclass(frozen=True, kw_only=True)
class ImplicitConfig(NetworkConfig):
    """Shape of the network; defaults are FeINFN's encoders and LIIF's pointwise network."""

    name: Literal["implicit"] = "implicit"
    feat_dim: Count = 128
    """Channels of the LR-HSI latent code."""
    guide_dim: Count = 128
    """Channels of the HR guide latent code."""
    blocks: Count = 4
    """Residual blocks of each encoder."""
    mlp_widths: Counts = (256, 256, 256, 256)
    """Hidden widths of the pointwise network."""


@dataclass(frozen=True, kw_only=True)
class SSRNetConfig(NetworkConfig):
    """Shape of the network, which follows from the band counts."""

    name: Literal["ssrnet"] = "ssrnet"

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = f"at most model.hsi_bands = {self.hsi_bands}, whose places MSI bands take"
        require(self.msi_bands <= self.hsi_bands, "model.msi_bands", self.msi_bands, expected)
        expected = "false, because each of its three stages adds to the image"
        require(not self.zero_start, "model.zero_start", self.zero_start, expected)


@dataclass(frozen=True, kw_only=True)
class ResTFNetConfig(NetworkConfig):
    """Shape of the network; the default is the paper's."""

    name: Literal["restfnet"] = "restfnet"
    width: Count = 32
    """Channels C of each encoder at full size; 2C at half, 8C after fusion at a quarter."""


@dataclass(frozen=True, kw_only=True)
class MSTConfig(NetworkConfig):
    """Shape of the network; the default has FeINFN's number of parameters."""

    name: Literal["mst"] = "mst"
    width: Count = 48
    """Channels at full size and of every head; channels and heads double at each smaller scale."""
    blocks: Counts = (2, 2, 5)
    """Blocks at each scale, from full size down; the last number is that of the bottom."""
    expansion: Count = 4
    """Widening factor of the feed-forward halves."""


@dataclass(frozen=True, kw_only=True)
class ResidualConfig(NetworkConfig):
    """Shape of the network."""

    name: Literal["residual"] = "residual"
    width: Count = 64
    """Channels C."""
    blocks: Count = 6
    """Residual blocks."""


@dataclass(frozen=True, kw_only=True)
class ClassicalConfig(Consistent):
    """Configuration of a classical method in place of a network; nothing is trained."""

    name: Literal["bicubic", "gsa", "sfim_hs", "local", "cnmf", "subspace"]
    """The method."""


FEINFN = "feinfn"
"""The model of configurations without a name: FeINFN's own has none."""

LEARNED: dict[str, type[Any]] = {
    FEINFN: ModelConfig,
    **{
        kind.name: kind
        for kind in (ImplicitConfig, SSRNetConfig, ResTFNetConfig, MSTConfig, ResidualConfig)
    },
}
"""The fields of every learned model by name; the networks are in `feinfn.methods.registry`."""

CLASSICAL_NAMES: tuple[str, ...] = get_args(get_type_hints(ClassicalConfig)["name"])
"""Every classical method; the methods are in `feinfn.methods.classical.registry`."""


def config_type(name: str, where: str = "model.name") -> type[Any]:
    """Return the configuration type of a learned model or a classical method.

    Raises `UserError` for an unknown name, reported as the value of `where`.
    """
    require_one_of(where, name, [*LEARNED, *CLASSICAL_NAMES])
    return LEARNED.get(name, ClassicalConfig)


def name_of(config: Any) -> str:
    """Return the name of the model or method to which a configuration belongs."""
    return getattr(config, "name", FEINFN)


def response_to_meet(
    config: Any, protocol: Protocol, wavelengths_nm: Sequence[float] | None
) -> np.ndarray | None:
    """Return the response [M, S] on bands at these wavelengths that a method's projection needs.

    None if it projects nothing. Raises `UserError` for a protocol whose response is not known.
    """
    if config.consistency == "none":
        return None
    nm = None if wavelengths_nm is None else np.asarray(wavelengths_nm)
    try:
        return protocol.response(config.hsi_bands, nm)
    except UserError as error:
        raise UserError(
            f"found {config.consistency!r}, expected none, because the response is not known "
            f"({error}); leave it out, or use another protocol",
            "model.consistency",
        ) from None


def check_parts(
    config: Any, memory_mib: float | None, recompute: bool = False, section: str = ""
) -> None:
    """Raise `UserError` unless the network can work in parts, in a memory > 0; FeINFN can.

    A budget is refused with a base or a projection too, which take whole images.
    """
    in_parts = isinstance(config, ModelConfig)
    expected = f"none, because model.name {name_of(config)!r} takes whole images; leave it out"
    require(in_parts or memory_mib is None, f"{section}memory_mib", memory_mib, expected)
    require(in_parts or not recompute, f"{section}recompute", recompute, expected)
    if memory_mib is not None:
        check(f"{section}memory_mib", memory_mib, Positive)
        expected = (
            "none, because model.base and model.consistency take whole images; leave it out, or "
            "set them to lms and none"
        )
        require(not config.needs_sensor, f"{section}memory_mib", memory_mib, expected)
