"""Learned models behind one interface; a new model takes one file and one name here."""

from typing import Any

from torch import nn

from feinfn.config import ModelConfig
from feinfn.errors import UserError, require, require_one_of
from feinfn.fields import Positive, check
from feinfn.methods.classical.registry import CLASSICAL, ClassicalConfig
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.learned.liif import ImplicitFusion
from feinfn.methods.learned.mst import MSTFusion
from feinfn.methods.learned.residual import ResidualNetwork
from feinfn.methods.learned.restfnet import ResTFNet
from feinfn.methods.learned.ssrnet import SSRNet
from feinfn.methods.network import Network
from feinfn.methods.sensor import Sensor

MODELS: dict[str, type[Network]] = {
    network.name: network
    for network in (FeINFN, ImplicitFusion, SSRNet, ResTFNet, MSTFusion, ResidualNetwork)
}
"""Every learned model by name."""

FEINFN = FeINFN.name
"""The model of configurations without a name: FeINFN's own has none."""


def config_type(name: str, where: str = "model.name") -> type[Any]:
    """Return the configuration type of a learned model or a classical method.

    Raises `UserError` for an unknown name, reported as the value of `where`.
    """
    require_one_of(where, name, [*MODELS, *CLASSICAL])
    return MODELS[name].config_type if name in MODELS else ClassicalConfig


def name_of(config: Any) -> str:
    """Return the name of the model or method to which a configuration belongs."""
    return getattr(config, "name", FEINFN)


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


def build(
    config: Any,
    memory_mib: float | None = None,
    recompute: bool = False,
    sensor: Sensor | None = None,
) -> Network:
    """Return a new network of the model to which the configuration belongs.

    `memory_mib` and `recompute` are those of `FeINFN`; `sensor` is that of `sensor_of`, without
    which a network with a base or a projection fuses nothing by itself. Raises `UserError` for any
    other configuration, and as `check_parts` does.
    """
    check_parts(config, memory_mib, recompute)
    network = _network(config, memory_mib, recompute)
    network.sensor = sensor
    if config.zero_start:
        for parameter in network.last.parameters():
            nn.init.zeros_(parameter)
    return network


def _network(config: Any, memory_mib: float | None, recompute: bool) -> Network:
    if isinstance(config, ModelConfig):
        return FeINFN(config, memory_mib, recompute)
    for network in MODELS.values():
        if type(config) is network.config_type:
            return network(config)
    raise UserError(
        f"model: found a {type(config).__name__}, expected the configuration of one of "
        + ", ".join(MODELS)
    )
